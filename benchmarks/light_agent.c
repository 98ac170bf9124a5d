/*
 * An agent that costs next to nothing: it joins with some plain connections, and answers
 * every request of HTTP/1 without a body at once, always with the same.
 *
 *     light_agent PORT CONNECTIONS HANDSHAKE-IN-HEX
 *
 * For benchmarks of what servers cost.  It dials each connection once, and ends with the
 * last one.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define END "\r\n\r\n"

static const char answer[] = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
static int matched[65536]; /* bytes of END that have come, by descriptor */

static int answer_all(int connection, const char *data, ssize_t size)
{
    char out[65536];
    size_t used = 0;
    for (ssize_t i = 0; i < size; i++) {
        int *at = &matched[connection];
        *at = data[i] == END[*at] ? *at + 1 : data[i] == '\r';
        if (*at < 4)
            continue;
        *at = 0;
        if (used + sizeof answer > sizeof out)
            return -1;
        memcpy(out + used, answer, sizeof answer - 1);
        used += sizeof answer - 1;
    }
    return used && send(connection, out, used, MSG_NOSIGNAL) != (ssize_t)used ? -1 : 0;
}

int main(int count, char **words)
{
    if (count != 4)
        return 2;
    int wanted = atoi(words[2]), poll = epoll_create1(0), open = 0, one = 1;
    size_t size = strlen(words[3]) / 2;
    unsigned char hello[4096];
    if (size > sizeof hello)
        return 2;
    for (size_t i = 0; i < size; i++)
        sscanf(words[3] + 2 * i, "%2hhx", &hello[i]);
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(atoi(words[1]))};
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (; open < wanted; open++) {
        int connection = socket(AF_INET, SOCK_STREAM, 0);
        struct epoll_event event = {.events = EPOLLIN, .data.fd = connection};
        if (connect(connection, (struct sockaddr *)&server, sizeof server) ||
            write(connection, hello, size) != (ssize_t)size)
            return perror("light_agent"), 1;
        setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        epoll_ctl(poll, EPOLL_CTL_ADD, connection, &event);
    }
    while (open) {
        struct epoll_event events[64];
        int ready = epoll_wait(poll, events, 64, -1);
        for (int i = 0; i < ready; i++) {
            char data[65536];
            ssize_t got = recv(events[i].data.fd, data, sizeof data, 0);
            if (got <= 0 || answer_all(events[i].data.fd, data, got)) {
                close(events[i].data.fd);
                open--;
            }
        }
    }
    return 0;
}
