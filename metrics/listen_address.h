// Where metrics are served: reading the address, and saying why it cannot be had.
#ifndef POSTKEEPER_METRICS_LISTEN_ADDRESS_H_
#define POSTKEEPER_METRICS_LISTEN_ADDRESS_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace postkeeper {

struct ListenAddress {
  std::string host;  // numeric, without brackets
  int port = 0;      // 0 = any free one

  // "127.0.0.1:7412", "[::1]:7412"
  std::string Text() const;
};

// Reads host:port. INVALID_ARGUMENT with a line for the user.
absl::Status ParseListenAddress(std::string_view text, ListenAddress* address);

// OK if the address can be bound now; else UNAVAILABLE with a line for the user, who gave it with `flag`:
// "port 7412 on 127.0.0.1 is taken. Choose another: --metrics-listen 127.0.0.1:7500".
absl::Status CheckCanListen(const ListenAddress& address, std::string_view flag);

}  // namespace postkeeper

#endif  // POSTKEEPER_METRICS_LISTEN_ADDRESS_H_
