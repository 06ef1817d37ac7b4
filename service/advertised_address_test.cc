// What is advertised can be connected to.
#include "service/advertised_address.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace postkeeper {
namespace {

using testing::AnyOf;
using testing::Not;
using testing::StartsWith;

// However it is written, an address that means all of them is known as that; no other is taken for one.
TEST(AdvertisedAddressTest, EveryAddress) {
  for (const char* every : {"0.0.0.0:1", "0:1", "0.0:1", "000.0.0.0:1", "0x0:1", "[::]:1", "[0::0]:1",
                            "[0:0:0:0:0:0:0:0]:1", "[::0.0.0.0]:1", "[::ffff:0.0.0.0]:1"}) {
    EXPECT_TRUE(IsEveryAddress(every)) << every;
  }
  for (const char* one : {"127.0.0.1:1", "0.0.0.1:1", "[::1]:1", "[fe80::1]:1", "localhost:1", "zero:0",
                          "[::ffff:1.2.3.4]:1", "", ":1"}) {
    EXPECT_FALSE(IsEveryAddress(one)) << one;
  }
}

// By default what is bound is advertised; if that is every address, the host's first that fits, with the bound port.
TEST(AdvertisedAddressTest, Default) {
  const std::vector<std::string> both = {"10.0.0.5", "10.0.0.6", "[2001:db8::5]"};
  const std::vector<std::string> ipv6 = {"[2001:db8::5]"};
  EXPECT_EQ(DefaultAdvertisedAddress("127.0.0.1:7411", both), "127.0.0.1:7411");
  EXPECT_EQ(DefaultAdvertisedAddress("a.example:7411", both), "a.example:7411");
  EXPECT_EQ(DefaultAdvertisedAddress("0.0.0.0:7411", both), "10.0.0.5:7411");
  EXPECT_EQ(DefaultAdvertisedAddress("[::]:7411", both), "10.0.0.5:7411");
  EXPECT_EQ(DefaultAdvertisedAddress("[::]:7411", ipv6), "[2001:db8::5]:7411");
  EXPECT_EQ(DefaultAdvertisedAddress("0.0.0.0:7411", ipv6), "127.0.0.1:7411");
  EXPECT_EQ(DefaultAdvertisedAddress("[::]:7411", {}), "127.0.0.1:7411");
}

// What this host says of itself are addresses that others can use.
TEST(AdvertisedAddressTest, OfThisHost) {
  for (const std::string& address : HostAddresses()) {
    EXPECT_THAT(address,
                Not(AnyOf(StartsWith("127."), StartsWith("169.254."), StartsWith("[::1]"), StartsWith("[fe80"))));
    EXPECT_FALSE(IsEveryAddress(address + ":1"));
  }
}

}  // namespace
}  // namespace postkeeper
