// What a list of servers must look like, so that the C client reads it as it is meant.
#include <charconv>
#include <string>
#include <string_view>

#include "zkstore/c_client.h"
#include "zkstore/c_client_call.h"
#include "zkstore/text.h"

namespace postkeeper::zk {
namespace {

bool IsHostAndPort(std::string_view server) {
  std::size_t colon = server.rfind(':');
  if (colon == server.npos || colon == 0 || server.find('[') != server.npos) return false;
  if (server.substr(colon + 1).starts_with('0')) return false;  // the C client would read it as octal
  const char* end = server.data() + server.size();
  int port = 0;
  auto [rest, error] = std::from_chars(server.data() + colon + 1, end, port);
  return error == std::errc() && rest == end && port >= 1 && port <= 65535;
}

}  // namespace

absl::Status CheckHosts(std::string_view hosts) {
  const std::string_view servers = hosts.substr(0, hosts.find('/'));
  if (servers.size() + 1 < hosts.size()) {
    Request probe{.kind = Request::Kind::kExists, .path = std::string(hosts.substr(servers.size()))};
    if (FirstInvalidPath(probe)) return absl::InvalidArgumentError(Quoted(probe.path) + " is not a path in ZooKeeper");
  }
  for (std::size_t start = 0; start <= servers.size();) {
    std::string_view server = servers.substr(start, servers.find(',', start) - start);
    if (!IsHostAndPort(server)) {
      return absl::InvalidArgumentError(Quoted(server) + " is not of the form host:port");
    }
    start += server.size() + 1;
  }
  return absl::OkStatus();
}

}  // namespace postkeeper::zk
