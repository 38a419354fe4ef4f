/* LD_PRELOAD shim: the k-th call of one kind on a temporary file below FAULT_DIR fails with FAULT_ERRNO.
   FAULT_CALL is write (write, pwrite, ftruncate), fsync or close; FAULT_AT is k, counted per process from 1. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int count = 0;

static int fails(const char *call, int fd) {
    const char *wanted = getenv("FAULT_CALL"), *folder = getenv("FAULT_DIR"), *at = getenv("FAULT_AT");
    char link[64], path[4096];
    if (!wanted || !folder || !at || strcmp(wanted, call)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    if (strncmp(path, folder, strlen(folder)) || !strstr(path, ".tmp-")) return 0;
    if (++count < atoi(at)) return 0;
    const char *number = getenv("FAULT_ERRNO");
    errno = number ? atoi(number) : ENOSPC;
    return 1;
}

#define REAL(name, ...) ((__typeof__(name) *)dlsym(RTLD_NEXT, #name))(__VA_ARGS__)
ssize_t write(int fd, const void *b, size_t n) { return fails("write", fd) ? -1 : REAL(write, fd, b, n); }
ssize_t pwrite(int fd, const void *b, size_t n, off_t o) { return fails("write", fd) ? -1 : REAL(pwrite, fd, b, n, o); }
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t o) { return fails("write", fd) ? -1 : REAL(pwrite64, fd, b, n, o); }
int ftruncate(int fd, off_t n) { return fails("write", fd) ? -1 : REAL(ftruncate, fd, n); }
int ftruncate64(int fd, off64_t n) { return fails("write", fd) ? -1 : REAL(ftruncate64, fd, n); }
int fsync(int fd) { return fails("fsync", fd) ? -1 : REAL(fsync, fd); }
int close(int fd) {
    int bad = fails("close", fd), saved = errno, result = REAL(close, fd);
    if (bad) { errno = saved; return -1; }
    return result;
}
