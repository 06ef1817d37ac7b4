#include "bench/metrics_page.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cstdlib>

#include "zkstore/text.h"

namespace postkeeper::bench {
namespace {

constexpr std::size_t kPageBytesMax = 16 << 20;
constexpr timeval kTimeout{.tv_sec = 5, .tv_usec = 0};

// A connected socket, or -1.
int Connect(const std::string& host, const std::string& port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (getaddrinfo(host.c_str(), port.c_str(), &hints, &found) != 0) return -1;
  const int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &kTimeout, sizeof(kTimeout));
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &kTimeout, sizeof(kTimeout));
  const int result = connect(fd, found->ai_addr, found->ai_addrlen);
  freeaddrinfo(found);
  if (result == 0) return fd;
  close(fd);
  return -1;
}

std::string_view NextLine(std::string_view& text) {
  const std::size_t end = text.find('\n');
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  return line;
}

}  // namespace

absl::StatusOr<std::string> FetchMetricsPage(const std::string& address) {
  const std::size_t colon = address.rfind(':');
  if (colon == std::string::npos) return absl::InvalidArgumentError(Cat(address, " is not host:port"));
  const int fd = Connect(address.substr(0, colon), address.substr(colon + 1));
  if (fd < 0) return absl::UnavailableError(Cat("no metrics page at ", address));
  const std::string request = Cat("GET /metrics HTTP/1.0\r\nHost: ", address, "\r\nConnection: close\r\n\r\n");
  std::string page;
  if (send(fd, request.data(), request.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(request.size())) {
    char part[16384];
    ssize_t size = 0;
    while (page.size() < kPageBytesMax && (size = recv(fd, part, sizeof(part), 0)) > 0) {
      page.append(part, static_cast<std::size_t>(size));
    }
  }
  close(fd);
  if (page.find(" 200 ") == std::string::npos) return absl::UnavailableError(Cat("no metrics page at ", address));
  return page;
}

double SumOf(std::string_view page, std::string_view name, std::string_view label) {
  double sum = 0;
  while (!page.empty()) {
    const std::string_view line = NextLine(page);
    if (!line.starts_with(name) || line.size() <= name.size()) continue;
    const char after = line[name.size()];
    if (after != ' ' && after != '{') continue;
    const std::size_t labels_end = after == '{' ? line.rfind('}') : name.size();
    if (labels_end == std::string_view::npos) continue;
    if (line.substr(0, labels_end).find(label) == std::string_view::npos) continue;
    sum += std::strtod(std::string(line.substr(labels_end + 1)).c_str(), nullptr);
  }
  return sum;
}

BatchCounts BatchCounts::Of(std::string_view page) {
  return {.batches = SumOf(page, "postkeeper_batch_messages_count"),
          .messages = SumOf(page, "postkeeper_batch_messages_sum"),
          .multi_seconds = SumOf(page, "postkeeper_zookeeper_request_seconds_sum", "operation=\"multi\"")};
}

}  // namespace postkeeper::bench
