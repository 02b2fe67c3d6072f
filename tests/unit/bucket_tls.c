/*
 * Certificates, with a server of the openssl command's: it answers each GET
 * with a page of HTML, so that a list that gets this far "is a HTML".
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/error.h"
#include "bucket/bucket.h"
#include "bucket/s3.h"
#include "bucket/url.h"

static char dir[] = "/tmp/litebucket-tls-XXXXXX";
static char certificate[64];
static int port;
static pid_t server;

static int run(const char *format, ...) __attribute__((format(printf, 1, 2)));

static int run(const char *format, ...)
{
	char command[512];
	va_list args;

	va_start(args, format);
	(void)vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	return system(command);
}

/* A connected socket, or -1. */
static int try_connect(void)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_port = htons((uint16_t)port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	(void)close(fd);
	return -1;
}

/* A port that was free a moment ago. */
static int free_port(void)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t size = sizeof(address);
	AUTO(fd) int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size),
			 0);
	return ntohs(address.sin_port);
}

static int start_server(void **state)
{
	int fd = -1;

	assert_non_null(mkdtemp(dir));
	(void)snprintf(certificate, sizeof(certificate), "%s/cert.pem", dir);
	assert_int_equal(
		run("cd %s && openssl req -x509 -newkey rsa:2048 -nodes "
		    "-keyout key.pem -out cert.pem -days 2 -subj /CN=localhost "
		    "-addext subjectAltName=DNS:localhost 2>req.log", dir), 0);
	port = free_port();
	server = fork();
	if (server == 0) {
		char text[16];

		(void)snprintf(text, sizeof(text), "%d", port);
		if (chdir(dir) == 0 && freopen("server.log", "w", stdout) &&
		    freopen("/dev/null", "r", stdin))
			execlp("openssl", "openssl", "s_server", "-quiet",
			       "-www", "-key", "key.pem", "-cert", "cert.pem",
			       "-accept", text, NULL);
		_exit(127);
	}
	for (int i = 0; i < 100 && (fd = try_connect()) < 0; i++)
		clock_sleep_ms(50);
	return fd >= 0 ? close(fd) : -1;
}

static int stop_server(void **state)
{
	(void)kill(server, SIGTERM);
	(void)waitpid(server, NULL, 0);
	return run("rm -rf %s", dir);
}

static int ignore_object(const struct bucket_object *object, void *arg)
{
	return 0;
}

static int list_at(const char *host, const char *ca_bundle)
{
	AUTO(bucket_url) struct bucket_url url = { 0 };
	AUTO(bucket) struct bucket *b = NULL;
	char text[512];
	int rc;

	(void)snprintf(text, sizeof(text), "s3://bucket/?endpoint=%s:%d%s%s",
		       host, port, ca_bundle ? "&ca-bundle=" : "",
		       ca_bundle ? ca_bundle : "");
	assert_int_equal(bucket_url_parse(text, &url), 0);
	rc = bucket_s3_new(&url, &b);
	return rc < 0 ? rc : bucket_list(b, "", NULL, 0, ignore_object, NULL);
}

static void assert_refused(int rc, int expected, const char *says)
{
	if (rc != expected || !strstr(error_message(), says))
		fail_msg("got %d '%s', expected %d '%s'", rc, error_message(),
			 expected, says);
}

static void a_certificate_of_an_unknown_authority_is_refused(void **state)
{
	assert_refused(list_at("https://localhost", NULL), -EPROTO,
		       "ca-bundle");
}

static void a_ca_bundle_makes_it_known(void **state)
{
	assert_refused(list_at("https://localhost", certificate), -ERR_CORRUPT,
		       "list cannot be read");
}

static void a_certificate_for_another_name_is_refused(void **state)
{
	assert_refused(list_at("https://127.0.0.1", certificate), -EPROTO,
		       "127.0.0.1");
}

static void a_ca_bundle_that_is_missing_is_named(void **state)
{
	assert_refused(list_at("https://localhost", "/no/such.pem"), -ENOENT,
		       "/no/such.pem");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			a_certificate_of_an_unknown_authority_is_refused),
		cmocka_unit_test(a_ca_bundle_makes_it_known),
		cmocka_unit_test(a_certificate_for_another_name_is_refused),
		cmocka_unit_test(a_ca_bundle_that_is_missing_is_named),
	};

	(void)setenv("AWS_ACCESS_KEY_ID", "the-access-key", 1);
	(void)setenv("AWS_SECRET_ACCESS_KEY", "the-secret-key", 1);
	(void)unsetenv("AWS_CA_BUNDLE");
	return cmocka_run_group_tests(tests, start_server, stop_server);
}
