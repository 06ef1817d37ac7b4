#include "service/advertised_address.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>

#include <array>
#include <memory>
#include <utility>

#include "zkstore/text.h"

namespace postkeeper {
namespace {

constexpr std::uint32_t kLinkLocalMask = 0xFFFF0000;
constexpr std::uint32_t kLinkLocalNet = 0xA9FE0000;  // 169.254.0.0/16

struct HostAndPort {
  std::string host;
  std::string_view port;
};

HostAndPort Split(std::string_view address) {
  const std::size_t colon = address.rfind(':');
  if (colon == std::string_view::npos) return {std::string(address), ""};
  return {std::string(address.substr(0, colon)), address.substr(colon + 1)};
}

bool IsEveryIpv4(const std::string& host) {
  in_addr address{};
  return inet_aton(host.c_str(), &address) != 0 && address.s_addr == INADDR_ANY;
}

bool IsEveryIpv6(const std::string& host) {
  if (host.size() < 2 || host.front() != '[' || host.back() != ']') return false;
  in6_addr address{};
  if (inet_pton(AF_INET6, host.substr(1, host.size() - 2).c_str(), &address) != 1) return false;
  if (IN6_IS_ADDR_UNSPECIFIED(&address)) return true;
  // ::ffff:0.0.0.0
  return IN6_IS_ADDR_V4MAPPED(&address) && address.s6_addr32[3] == INADDR_ANY;
}

// As text; empty if nobody else could use it.
std::string TextOf(const sockaddr& socket_address) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (socket_address.sa_family == AF_INET) {
    const in_addr& address = reinterpret_cast<const sockaddr_in&>(socket_address).sin_addr;
    if ((ntohl(address.s_addr) & kLinkLocalMask) == kLinkLocalNet) return "";
    return inet_ntop(AF_INET, &address, text.data(), text.size()) == nullptr ? "" : text.data();
  }
  if (socket_address.sa_family == AF_INET6) {
    const in6_addr& address = reinterpret_cast<const sockaddr_in6&>(socket_address).sin6_addr;
    if (IN6_IS_ADDR_LINKLOCAL(&address)) return "";
    return inet_ntop(AF_INET6, &address, text.data(), text.size()) == nullptr ? "" : Cat("[", text.data(), "]");
  }
  return "";
}

}  // namespace

bool IsEveryAddress(std::string_view address) {
  const std::string host = Split(address).host;
  return IsEveryIpv4(host) || IsEveryIpv6(host);
}

std::string DefaultAdvertisedAddress(std::string_view bound, std::span<const std::string> host_addresses) {
  if (!IsEveryAddress(bound)) return std::string(bound);
  const auto [host, port] = Split(bound);
  const bool only_ipv4 = IsEveryIpv4(host);
  for (const std::string& candidate : host_addresses) {
    if (!only_ipv4 || !candidate.starts_with('[')) return Cat(candidate, ":", port);
  }
  return Cat("127.0.0.1:", port);
}

std::vector<std::string> HostAddresses() {
  ifaddrs* first = nullptr;
  if (getifaddrs(&first) != 0) return {};
  const std::unique_ptr<ifaddrs, void (*)(ifaddrs*)> list(first, freeifaddrs);
  std::vector<std::string> ipv4, ipv6;
  for (const ifaddrs* at = first; at != nullptr; at = at->ifa_next) {
    const bool is_useful = (at->ifa_flags & IFF_UP) != 0 && (at->ifa_flags & IFF_LOOPBACK) == 0;
    if (!is_useful || at->ifa_addr == nullptr) continue;
    std::string text = TextOf(*at->ifa_addr);
    if (text.empty()) continue;
    (text.starts_with('[') ? ipv6 : ipv4).push_back(std::move(text));
  }
  ipv4.insert(ipv4.end(), std::make_move_iterator(ipv6.begin()), std::make_move_iterator(ipv6.end()));
  return ipv4;
}

}  // namespace postkeeper
