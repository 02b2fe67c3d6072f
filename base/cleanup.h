#ifndef LITEBUCKET_BASE_CLEANUP_H
#define LITEBUCKET_BASE_CLEANUP_H

/*
 * Scoped ownership
 * ================
 *
 * A local variable declared AUTO(kind) is released by kind_cleanup() on every
 * way out of its scope.  A function that hands the resource on says so where
 * it happens, with TAKE() or TAKE_FD():
 *
 *	AUTO(fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
 *	...
 *	file->fd = TAKE_FD(fd);		// the file owns it from here
 *
 * goto is left for what scopes cannot say: undoing steps in a given order.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#define AUTO(kind) __attribute__((cleanup(kind##_cleanup), unused))

#define TAKE(p)                             \
	__extension__({                     \
		__auto_type taken_ = (p);   \
		(p) = NULL;                 \
		taken_;                     \
	})
#define TAKE_FD(fd)                         \
	__extension__({                     \
		int taken_ = (fd);          \
		(fd) = -1;                  \
		taken_;                     \
	})

static inline void mem_cleanup(void *p)
{
	free(*(void **)p);
}

/* close(2) must not hide the error that is being returned. */
static inline void fd_cleanup(const int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		(void)close(*fd);
	errno = saved;
}

/*
 * AUTO(unlock) pthread_mutex_t *held = lock(&m); holds m until the scope ends.
 */
static inline pthread_mutex_t *lock(pthread_mutex_t *m)
{
	(void)pthread_mutex_lock(m);
	return m;
}

static inline void unlock_cleanup(pthread_mutex_t **m)
{
	if (*m)
		(void)pthread_mutex_unlock(*m);
}

/* Define T_cleanup() for a type whose destructor is T_free(struct T *). */
#define AUTO_FREE(T)                                 \
	static inline void T##_cleanup(struct T **p) \
	{                                            \
		T##_free(*p);                        \
	}                                            \
	struct T

#endif
