#ifndef LITEBUCKET_BUCKET_CREDENTIALS_H
#define LITEBUCKET_BUCKET_CREDENTIALS_H

/*
 * Who we are for an S3 store: from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY
 * and AWS_SESSION_TOKEN.  No message ever shows them.
 */
struct credentials {
	char *access_key;
	char *secret_key;
	char *session_token; /* NULL: none */
};

/* -EACCES with a sentence that names the variable that is missing. */
int credentials_from_env(struct credentials *ret);

/* Overwrites the secrets before it frees them. */
void credentials_clear(struct credentials *c);

#endif
