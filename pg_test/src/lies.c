/* What a server is told by its C library: a clock that jumps, a name server that is silent. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* By how many seconds the clock is wrong now. */
static const volatile long long *wrong;

__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv("PG_NODES_CLOCK");
	int			file = path ? open(path, O_RDONLY) : -1;
	void	   *page = MAP_FAILED;

	if (file >= 0)
		page = mmap(NULL, sizeof(*wrong), PROT_READ, MAP_SHARED, file, 0);
	if (page == MAP_FAILED)
		abort();
	wrong = page;
	close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
	int			outcome = (int) syscall(SYS_clock_gettime, clock, now);

	if (outcome == 0 && wrong && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
		now->tv_sec += *wrong;
	return outcome;
}

int gettimeofday(struct timeval *now, void *zone)
{
	struct timespec precise;
	int			outcome = clock_gettime(CLOCK_REALTIME, &precise);

	(void) zone;
	now->tv_sec = precise.tv_sec;
	now->tv_usec = precise.tv_nsec / 1000;
	return outcome;
}

time_t time(time_t *now)
{
	struct timespec precise;

	clock_gettime(CLOCK_REALTIME, &precise);
	if (now)
		*now = precise.tv_sec;
	return precise.tv_sec;
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
				struct addrinfo **found)
{
	int			(*real) (const char *, const char *, const struct addrinfo *, struct addrinfo **);

	while (name && strncmp(name, "silent", 6) == 0)
		pause();
	*(void **) &real = dlsym(RTLD_NEXT, "getaddrinfo");
	return real(name, service, hints, found);
}
