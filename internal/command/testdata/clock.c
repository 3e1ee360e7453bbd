// Preloaded into a redis-server, it sets the wall clock CLOCK_SECONDS ahead, and makes it run at
// CLOCK_PERCENT of the right speed from the start of the process on.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long long bent(long long us) {
	static long long from, ahead;
	static double speed;
	if (!from) {
		const char *percent = getenv("CLOCK_PERCENT"), *seconds = getenv("CLOCK_SECONDS");
		speed = percent ? atof(percent) / 100 : 1;
		ahead = seconds ? atoll(seconds) * 1000000 : 0;
		from = us;
	}
	return from + ahead + (long long)((us - from) * speed);
}

int gettimeofday(struct timeval *restrict tv, void *restrict tz) {
	static int (*real)(clockid_t, struct timespec *);
	if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
	struct timespec ts;
	int rc = real(CLOCK_REALTIME, &ts);
	(void)tz;
	if (rc == 0 && tv) {
		long long us = bent(ts.tv_sec * 1000000LL + ts.tv_nsec / 1000);
		tv->tv_sec = us / 1000000;
		tv->tv_usec = us % 1000000;
	}
	return rc;
}
