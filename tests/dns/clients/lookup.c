/* lookup NAME...: what the C library's getaddrinfo finds, one line a name: name, milliseconds, addresses or a word. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>

int main(int count, char **arguments) {
    for (int i = 1; i < count; i++) {
        struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *found = NULL;
        struct timespec from, to;
        clock_gettime(CLOCK_MONOTONIC, &from);
        int error = getaddrinfo(arguments[i], "80", &hints, &found);
        clock_gettime(CLOCK_MONOTONIC, &to);
        long millis = (to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1000000;
        printf("%s %ld", arguments[i], millis);
        if (error) {
            printf(error == EAI_NONAME ? " none" : " error:%d", error);
        }
        for (struct addrinfo *one = found; one; one = one->ai_next) {
            char text[INET6_ADDRSTRLEN];
            const void *address = one->ai_family == AF_INET6 ? (void *)&((struct sockaddr_in6 *)one->ai_addr)->sin6_addr
                                                             : (void *)&((struct sockaddr_in *)one->ai_addr)->sin_addr;
            printf(" %s", inet_ntop(one->ai_family, address, text, sizeof text));
        }
        printf("\n");
        if (found) {
            freeaddrinfo(found);
        }
    }
    return 0;
}
