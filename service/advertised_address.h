// The address under which other replicas reach this one.
#ifndef POSTKEEPER_SERVICE_ADVERTISED_ADDRESS_H_
#define POSTKEEPER_SERVICE_ADVERTISED_ADDRESS_H_

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace postkeeper {

// True for host:port whose host means every address of a machine (0.0.0.0, [::], and other ways to write them): it can
// be listened on, but not connected to. Names are not looked up.
bool IsEveryAddress(std::string_view address);

// What is advertised when nobody says otherwise: `bound`, the host:port that is listened on; if that is every address,
// the first of `host_addresses` with the same port, or 127.0.0.1 where there is none, since then nobody else can reach
// this machine anyhow. Bound to 0.0.0.0, only IPv4 ones are considered.
std::string DefaultAdvertisedAddress(std::string_view bound, std::span<const std::string> host_addresses);

// This host's addresses, as in URLs ([...] around IPv6), in the system's order, IPv4 first. Without loopback and
// link-local ones and those of interfaces that are down.
std::vector<std::string> HostAddresses();

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_ADVERTISED_ADDRESS_H_
