// What becomes of a znode's version, which has 32 bits. 2^31 writes take days, so a server's transaction log is
// altered.
#include <gtest/gtest.h>
#include <zlib.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>

#include "tests/contract/c_client_world.h"
#include "tests/support/zookeeper_server.h"

namespace postkeeper::zk {
namespace {

std::uint32_t ReadNumber(const std::string& bytes, std::size_t at) {
  std::uint32_t number = 0;
  for (std::size_t i = 0; i < 4; ++i) number = number << 8 | static_cast<unsigned char>(bytes[at + i]);
  return number;
}

void WriteNumber(std::string& bytes, std::size_t at, std::uint32_t number) {
  for (std::size_t i = 0; i < 4; ++i) bytes[at + i] = static_cast<char>(number >> (24 - 8 * i));
}

// In a file of ZooKeeper's transaction log: the set whose data is `data` gets another version. The file is a head of 16
// bytes and then, for each transaction: a checksum in 8 bytes, a length in 4, so many bytes, and "B".
void AlterVersionInLog(const std::filesystem::path& path, const std::string& data, std::int32_t version) {
  std::ifstream file(path, std::ios::binary);
  std::string bytes = (std::ostringstream() << file.rdbuf()).str();
  const std::size_t found = bytes.find(data);
  ASSERT_NE(found, bytes.npos);
  ASSERT_EQ(bytes.find(data, found + 1), bytes.npos);
  std::size_t start = 16;
  while (start + 12 + ReadNumber(bytes, start + 8) < found) start += 12 + ReadNumber(bytes, start + 8) + 1;
  WriteNumber(bytes, found + data.size(), static_cast<std::uint32_t>(version));
  const auto* content = reinterpret_cast<const Bytef*>(bytes.data() + start + 12);
  const auto checksum = static_cast<std::uint32_t>(adler32(1, content, ReadNumber(bytes, start + 8)));
  WriteNumber(bytes, start + 4, checksum);
  std::ofstream(path, std::ios::binary) << bytes;
}

class VersionWrapTest : public testing::Test, public CClientWorld {};

// After 2^31 writes the version goes on at -2^31. When it comes to -1, the write that names it names "any" version: of
// two writers with that fence both get through.
TEST_F(VersionWrapTest, TheFenceIsOffAtMinusOne) {
  ZookeeperServer server;
  server.Start();
  options_.hosts = server.hosts();
  {
    Peer peer(*this);
    for (const char* path : {"/highest", "/before-minus-one"}) {
      ASSERT_EQ(peer.Create(path).code, Code::kOk);
      ASSERT_EQ(peer.Set(path, std::string("written to ") + path, 0).code, Code::kOk);
    }
  }
  server.Kill();
  constexpr std::int32_t kHighest = std::numeric_limits<std::int32_t>::max();
  std::vector<std::string> logs;
  for (const auto& entry : std::filesystem::directory_iterator(server.folder() + "/data/version-2")) {
    if (entry.path().filename().string().starts_with("log.")) logs.push_back(entry.path());
  }
  ASSERT_EQ(logs.size(), 1u);
  AlterVersionInLog(logs.front(), "written to /highest", kHighest);
  AlterVersionInLog(logs.front(), "written to /before-minus-one", -2);
  server.Start();

  Peer peer(*this);
  Peer rival(*this);
  EXPECT_EQ(peer.Get("/highest").stat.version, kHighest);
  EXPECT_EQ(peer.Set("/highest", "", kHighest).stat.version, std::numeric_limits<std::int32_t>::min());

  EXPECT_EQ(peer.Set("/before-minus-one", "", -2).stat.version, -1);
  EXPECT_EQ(peer.Set("/before-minus-one", "mine", -1).code, Code::kOk);
  EXPECT_EQ(rival.Set("/before-minus-one", "no, mine", -1).code, Code::kOk);
}

}  // namespace
}  // namespace postkeeper::zk
