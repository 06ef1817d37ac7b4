#include "service/snapshot_purger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"

namespace postkeeper {
namespace {

using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;
namespace fs = std::filesystem;

class SnapshotPurgerTest : public ::testing::Test {
 protected:
  SnapshotPurgerTest() {
    std::string pattern = (fs::temp_directory_path() / "postkeeper-test-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  ~SnapshotPurgerTest() override { fs::remove_all(folder_); }

  void Put(const std::string& name, const std::string& bytes) {
    std::ofstream(folder_ + "/" + name, std::ios::binary) << bytes;
  }
  // What ZooKeeper writes: header, contents, checksum, end.
  static std::string SnapshotBytes(std::size_t size = 3'000'000) {
    std::string bytes("ZKSN\0\0\0\2\xff\xff\xff\xff\xff\xff\xff\xff", 16);
    for (std::size_t i = 0; i < size; ++i) bytes.push_back(static_cast<char>(i * i));
    const std::uint64_t sum =
        adler32(adler32(0, nullptr, 0), reinterpret_cast<const Bytef*>(bytes.data()), static_cast<uInt>(bytes.size()));
    for (int shift = 56; shift >= 0; shift -= 8) bytes.push_back(static_cast<char>(sum >> shift));
    return bytes + std::string("\0\0\0\1/", 5);
  }
  void PutSnapshot(std::uint64_t zxid, std::size_t size = 100) {
    Put(absl::StrFormat("snapshot.%x", zxid), SnapshotBytes(size));
  }
  void PutLog(std::uint64_t zxid) { Put(absl::StrFormat("log.%x", zxid), "transactions"); }

  std::set<std::string> Files() const {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_)) names.insert(entry.path().filename().string());
    return names;
  }

  std::string folder_;
};

// The three newest snapshots stay, with every log that may hold a transaction after the oldest of them.
TEST_F(SnapshotPurgerTest, KeepsThreeSnapshotsAndTheirLogs) {
  for (const std::uint64_t zxid : {0x0, 0xff, 0x1ff, 0x2ff, 0x3ff}) PutSnapshot(zxid);
  for (const std::uint64_t zxid : {0x1, 0x110, 0x1f0, 0x205, 0x310}) PutLog(zxid);
  Put("currentEpoch", "1");
  Put("snapshot.", "x");
  Put("log.zz", "x");
  SnapshotPurger purger(folder_);
  const auto removed = purger.Purge();
  ASSERT_TRUE(removed.ok()) << removed.status();
  EXPECT_EQ(removed->snapshots, 2);
  EXPECT_EQ(removed->logs, 2);
  EXPECT_GT(removed->bytes, 0);
  // log.1f0 begins before snapshot.1ff and may go on after it.
  EXPECT_THAT(Files(), UnorderedElementsAre("snapshot.1ff", "snapshot.2ff", "snapshot.3ff", "log.1f0", "log.205",
                                            "log.310", "currentEpoch", "snapshot.", "log.zz"));
  EXPECT_EQ(purger.Purge()->snapshots, 0);
}

// With fewer than three sound snapshots nothing is removed.
TEST_F(SnapshotPurgerTest, RemovesNothingWithoutEnoughSnapshots) {
  PutSnapshot(0x10);
  PutSnapshot(0x20);
  PutLog(0x1);
  PutLog(0x11);
  PutLog(0x21);
  EXPECT_EQ(SnapshotPurger(folder_).Purge()->logs, 0);
  EXPECT_EQ(Files().size(), 5u);
}

// Snapshots that are being written, were cut off, or are damaged anywhere do not count, and stay while they are newer.
TEST_F(SnapshotPurgerTest, DamagedSnapshotsDoNotCount) {
  for (const std::uint64_t zxid : {0x10, 0x20, 0x30}) PutSnapshot(zxid);
  const std::string whole = SnapshotBytes();
  Put("snapshot.40", whole.substr(0, whole.size() - 1));
  std::string damaged = whole;
  damaged[1'500'000] ^= 1;
  Put("snapshot.50", damaged);
  Put("snapshot.60", "");
  Put("snapshot.70", whole.substr(0, 1000) + std::string("\0\0\0\1/", 5));
  std::string other_magic = whole;
  other_magic[0] = 'X';
  Put("snapshot.80", other_magic);
  for (const std::uint64_t zxid : {0x1, 0x11, 0x81}) PutLog(zxid);
  SnapshotPurger purger(folder_);
  EXPECT_EQ(purger.Purge()->snapshots, 0);
  EXPECT_EQ(Files().size(), 11u);
  // Once one of them is complete, the oldest goes, and with it the log that only it needed.
  Put("snapshot.40", whole);
  EXPECT_EQ(purger.Purge()->snapshots, 1);
  EXPECT_FALSE(Files().contains("snapshot.10"));
  EXPECT_FALSE(Files().contains("log.1"));
  EXPECT_TRUE(Files().contains("log.11"));
}

// A snapshot that was sound and is then written anew, as ZooKeeper does when it starts twice at one zxid, is looked at
// again.
TEST_F(SnapshotPurgerTest, RewrittenSnapshotIsCheckedAgain) {
  for (const std::uint64_t zxid : {0x10, 0x20, 0x30}) PutSnapshot(zxid);
  SnapshotPurger purger(folder_);
  EXPECT_EQ(purger.Purge()->snapshots, 0);
  Put("snapshot.30", "ZKSN half");
  PutSnapshot(0x40);
  EXPECT_EQ(purger.Purge()->snapshots, 0);
  EXPECT_TRUE(Files().contains("snapshot.10"));
}

// Logs that a crash left behind after their snapshots were removed go at the next call.
TEST_F(SnapshotPurgerTest, RemovesLogsThatACrashLeftBehind) {
  for (const std::uint64_t zxid : {0x30, 0x40, 0x50}) PutSnapshot(zxid);
  for (const std::uint64_t zxid : {0x1, 0x11, 0x2f}) PutLog(zxid);
  EXPECT_EQ(SnapshotPurger(folder_).Purge()->logs, 2);
  EXPECT_THAT(Files(), UnorderedElementsAre("snapshot.30", "snapshot.40", "snapshot.50", "log.2f"));
}

// A directory that is not there is an error, not a crash.
TEST_F(SnapshotPurgerTest, MissingDirectory) { EXPECT_FALSE(SnapshotPurger(folder_ + "/none").Purge().ok()); }

// Whatever the order of logs, snapshots and purges, every kept snapshot can be brought up to date: for each
// transaction after it there is a log, found the way ZooKeeper finds it, that holds it.
TEST_F(SnapshotPurgerTest, EveryKeptSnapshotCanBeRecoveredFrom) {
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    for (const std::string& name : Files()) fs::remove(folder_ + "/" + name);
    SnapshotPurger purger(folder_);
    std::vector<std::uint64_t> log_starts;  // of all logs ever, rising; each ends where the next begins
    std::uint64_t zxid = 0;
    bool log_is_open = false;
    for (int step = 0; step < 60; ++step) {
      switch (random() % 4) {
        case 0:
        case 1: {  // transactions
          if (!log_is_open) {
            log_starts.push_back(zxid + 1);
            PutLog(zxid + 1);
            log_is_open = true;
          }
          zxid += 1 + random() % 5;
          break;
        }
        case 2:  // the log is rolled, and a snapshot taken whose name may lag behind what was logged
          log_is_open = false;
          PutSnapshot(zxid - std::min(zxid, random() % 4));
          break;
        case 3:
          ASSERT_TRUE(purger.Purge().ok());
          break;
      }
    }
    ASSERT_TRUE(purger.Purge().ok());
    int snapshots = 0;
    const std::set<std::string> files = Files();
    for (const std::string& name : files) {
      if (!name.starts_with("snapshot.")) continue;
      ++snapshots;
      const std::uint64_t snapshot = std::stoull(name.substr(9), nullptr, 16);
      for (std::uint64_t needed = snapshot + 1; needed <= zxid; ++needed) {
        const auto after = std::upper_bound(log_starts.begin(), log_starts.end(), needed);
        ASSERT_NE(after, log_starts.begin());
        EXPECT_TRUE(files.contains(absl::StrFormat("log.%x", *std::prev(after)))) << name << " needs " << needed;
      }
    }
    EXPECT_LE(snapshots, SnapshotPurger::kKept);
  }
}

}  // namespace
}  // namespace postkeeper
