#include "metrics/listen_address.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

namespace postkeeper {
namespace {

// A listener on a free port of 127.0.0.1.
class Listener {
 public:
  Listener() : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(listen(fd_, 1), 0);
    EXPECT_EQ(getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    port_ = ntohs(address.sin_port);
  }
  ~Listener() { close(fd_); }
  int port() const { return port_; }

 private:
  int fd_;
  int port_ = 0;
};

// host:port is read, for IPv6 with brackets, and said again in the same form.
TEST(ListenAddressTest, ReadsAddresses) {
  ListenAddress address;
  ASSERT_TRUE(ParseListenAddress("127.0.0.1:7412", &address).ok());
  EXPECT_EQ(address.Text(), "127.0.0.1:7412");
  ASSERT_TRUE(ParseListenAddress("[::1]:0", &address).ok());
  EXPECT_EQ(address.host, "::1");
  EXPECT_EQ(address.Text(), "[::1]:0");
  ASSERT_TRUE(ParseListenAddress("localhost:1", &address).ok());
  EXPECT_EQ(address.Text(), "127.0.0.1:1");
}

// Everything else is refused with an example.
TEST(ListenAddressTest, RefusesWhatIsNoAddress) {
  ListenAddress address;
  for (const char* text :
       {"", "7412", ":7412", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "127.0.0.1:-1",
        "127.0.0.1: 1", "::1:7412", "[::1]", "no.such.host:1", "256.0.0.1:1", "127.0.0.1:99999999999999999999"}) {
    const absl::Status status = ParseListenAddress(text, &address);
    EXPECT_EQ(status.message(),
              "\"" + std::string(text) + "\" is not an address to listen on. Write it like 127.0.0.1:7412")
        << text;
  }
}

// A port that is taken is said in one line, with a command to type.
TEST(ListenAddressTest, SaysThatThePortIsTaken) {
  const Listener listener;
  const std::string port = std::to_string(listener.port());
  EXPECT_EQ(CheckCanListen({"127.0.0.1", listener.port()}, "--metrics-listen").message(),
            "port " + port + " on 127.0.0.1 is taken. Choose another: --metrics-listen 127.0.0.1:7500");
  EXPECT_TRUE(CheckCanListen({"127.0.0.1", 0}, "--metrics-listen").ok());
}

// So is an address of some other machine (this one is reserved for documentation).
TEST(ListenAddressTest, SaysThatTheAddressIsNotOurs) {
  EXPECT_EQ(CheckCanListen({"192.0.2.1", 7412}, "--listen").message(),
            "192.0.2.1 is not an address of this machine. Choose another: --listen 127.0.0.1:7500");
}

}  // namespace
}  // namespace postkeeper
