/* What a server is told by its C library: a clock that jumps, and a name server that lies. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
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

/* What is said of a name, as the file of that name has it: "DELAY_MS ANSWER". */
static int told(const char *name, char *text, int room)
{
	const char *names = getenv("PG_NODES_NAMES");
	char		path[1024];
	int			file = -1;
	ssize_t		length;

	if (names && name && !strchr(name, '/') &&
		snprintf(path, sizeof(path), "%s/%s", names, name) < (int) sizeof(path))
		file = open(path, O_RDONLY | O_CLOEXEC);
	if (file < 0)
		return 0;
	length = read(file, text, room - 1);
	close(file);
	text[length > 0 ? length : 0] = '\0';
	return 1;
}

typedef int (*Resolver) (const char *, const char *, const struct addrinfo *, struct addrinfo **);

/* The addresses of a text in its order: the C library frees such a list one by one. */
static int resolve_each(Resolver real, char *addresses, const char *service,
						const struct addrinfo *hints, struct addrinfo **found)
{
	struct addrinfo **end = found;
	char	   *rest = NULL;

	*found = NULL;
	for (char *one = strtok_r(addresses, " ", &rest); one; one = strtok_r(NULL, " ", &rest))
	{
		int			outcome = real(one, service, hints, end);

		if (outcome != 0)
			return outcome;
		while (*end)
			end = &(*end)->ai_next;
	}
	return *found ? 0 : EAI_NONAME;
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
				struct addrinfo **found)
{
	Resolver	real;
	char		text[512];
	char	   *answer;
	long		delay;

	*(void **) &real = dlsym(RTLD_NEXT, "getaddrinfo");
	do
	{
		if (!told(name, text, sizeof(text)))
			return real(name, service, hints, found);
		delay = strtol(text, &answer, 10);
		answer += strspn(answer, " ");
		usleep((useconds_t) delay * 1000);
	} while (strcmp(answer, "silent") == 0);
	if (strcmp(answer, "again") == 0)
		return EAI_AGAIN;
	return resolve_each(real, answer, service, hints, found);
}
