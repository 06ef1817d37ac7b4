#include "metrics/listen_address.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace postkeeper {
namespace {

constexpr int kPortMax = 65535;

struct FreeAddresses {
  void operator()(addrinfo* addresses) const { freeaddrinfo(addresses); }
};
using Addresses = std::unique_ptr<addrinfo, FreeAddresses>;

Addresses Resolve(const ListenAddress& address) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE;
  addrinfo* found = nullptr;
  if (getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &found) != 0) return nullptr;
  return Addresses(found);
}

// 0, or the errno of why it cannot be bound.
int TryToBind(const addrinfo& address) {
  const int fd = socket(address.ai_family, address.ai_socktype | SOCK_CLOEXEC, address.ai_protocol);
  if (fd < 0) return errno;
  // As the exposer does: connections of a former run that linger are no reason to fail.
  const int one = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  const int error = bind(fd, address.ai_addr, address.ai_addrlen) == 0 ? 0 : errno;
  close(fd);
  return error;
}

absl::Status Unreadable(std::string_view text) {
  return absl::InvalidArgumentError(absl::StrCat("\"", absl::string_view(text.data(), text.size()),
                                                 "\" is not an address to listen on. Write it like 127.0.0.1:7412"));
}

}  // namespace

std::string ListenAddress::Text() const {
  const bool is_ipv6 = host.find(':') != std::string::npos;
  return is_ipv6 ? absl::StrCat("[", host, "]:", port) : absl::StrCat(host, ":", port);
}

absl::Status ParseListenAddress(std::string_view text, ListenAddress* address) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || colon + 1 == text.size()) return Unreadable(text);
  std::string_view host = text.substr(0, colon);
  const std::string port(text.substr(colon + 1));
  const bool has_brackets = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (has_brackets) host = host.substr(1, host.size() - 2);
  if (host.empty() || (!has_brackets && host.find(':') != std::string_view::npos)) return Unreadable(text);
  const bool is_number = port.find_first_not_of("0123456789") == std::string::npos;
  if (!is_number || !absl::SimpleAtoi(port, &address->port) || address->port > kPortMax) return Unreadable(text);
  address->host = host == "localhost" ? "127.0.0.1" : std::string(host);
  if (Resolve(*address) == nullptr) return Unreadable(text);
  return absl::OkStatus();
}

absl::Status CheckCanListen(const ListenAddress& address, std::string_view flag) {
  const Addresses addresses = Resolve(address);
  const int error = addresses == nullptr ? EINVAL : TryToBind(*addresses);
  if (error == 0) return absl::OkStatus();
  const auto choose = [&](const std::string& host) {
    const int port = address.port == 7500 ? 7501 : 7500;
    return absl::StrCat("Choose another: ", absl::string_view(flag.data(), flag.size()), " ",
                        ListenAddress{host, port}.Text());
  };
  if (error == EADDRINUSE) {
    return absl::UnavailableError(
        absl::StrCat("port ", address.port, " on ", address.host, " is taken. ", choose(address.host)));
  }
  if (error == EADDRNOTAVAIL) {
    return absl::UnavailableError(
        absl::StrCat(address.host, " is not an address of this machine. ", choose("127.0.0.1")));
  }
  if (error == EACCES) {
    return absl::UnavailableError(
        absl::StrCat("port ", address.port, " on ", address.host, " is only for root. ", choose(address.host)));
  }
  return absl::UnavailableError(
      absl::StrCat("cannot listen on ", address.Text(), ": ", std::strerror(error), ". ", choose("127.0.0.1")));
}

}  // namespace postkeeper
