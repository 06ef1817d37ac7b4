#include "service/data_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <utility>

#include "zkstore/text.h"

namespace postkeeper {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
namespace fs = std::filesystem;

constexpr std::string_view kId = "00112233445566778899aabbccddeeff";

class DataDirectoryTest : public ::testing::Test {
 protected:
  DataDirectoryTest() {
    std::string pattern = (fs::temp_directory_path() / "postkeeper-test-XXXXXX").string();
    base_ = fs::canonical(mkdtemp(pattern.data())).string();
  }
  ~DataDirectoryTest() override { fs::remove_all(base_); }

  static mode_t ModeOf(const std::string& path) {
    struct stat info {};
    EXPECT_EQ(stat(path.c_str(), &info), 0) << path;
    return info.st_mode & 0777;
  }
  static void Put(const std::string& path, std::string_view text) { std::ofstream(path) << text; }

  std::string base_;
};

// A directory that is not there is made with its parents, for its owner alone.
TEST_F(DataDirectoryTest, MakesTheDirectoryForItsOwnerOnly) {
  const auto directory = DataDirectory::Open(base_ + "/a/b/data/");
  ASSERT_TRUE(directory.ok()) << directory.status();
  EXPECT_EQ(directory->path(), base_ + "/a/b/data");
  EXPECT_EQ(directory->zookeeper_path(), base_ + "/a/b/data/zookeeper");
  EXPECT_EQ(ModeOf(directory->path()), 0700u);
  EXPECT_EQ(ModeOf(directory->path() + "/lock"), 0600u);
  EXPECT_EQ(directory->previous_process_id(), std::nullopt);
}

// An empty directory that others may read is closed to them.
TEST_F(DataDirectoryTest, ClosesAnEmptyDirectoryToOthers) {
  fs::create_directory(base_ + "/open");
  fs::create_directory(base_ + "/open/lost+found");
  chmod((base_ + "/open").c_str(), 0755);
  ASSERT_TRUE(DataDirectory::Open(base_ + "/open").ok());
  EXPECT_EQ(ModeOf(base_ + "/open"), 0700u);
}

// A second process (here: a second open file) is told who holds the directory and what to do.
TEST_F(DataDirectoryTest, SecondHolderIsRefusedInOneLine) {
  auto first = DataDirectory::Open(base_ + "/data");
  ASSERT_TRUE(first.ok());
  const auto second = DataDirectory::Open(base_ + "/data");
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(second.status().message(),
            Cat("the data directory ", base_, "/data is in use by process ", getpid(), ". Stop that one (kill ",
                getpid(), "), or give this one a directory of its own: --data-dir DIR"));
  // The lock moves with the object and goes with it.
  {
    const DataDirectory moved = *std::move(first);
    EXPECT_FALSE(DataDirectory::Open(base_ + "/data").ok());
  }
  EXPECT_TRUE(DataDirectory::Open(base_ + "/data").ok());
}

// A directory with somebody else's files is left as it is, down to its mode.
TEST_F(DataDirectoryTest, LeavesOtherPeoplesDirectoriesAlone) {
  chmod(base_.c_str(), 0755);
  Put(base_ + "/thesis.txt", "text");
  const auto directory = DataDirectory::Open(base_);
  EXPECT_EQ(directory.status().message(),
            Cat(base_,
                " holds other files (thesis.txt) and is not a data directory of postkeeper. Choose an "
                "empty one: --data-dir DIR"));
  EXPECT_EQ(ModeOf(base_), 0755u);
  EXPECT_FALSE(fs::exists(base_ + "/lock"));
}

// A file in the place of the directory, or of one of its parents, is named.
TEST_F(DataDirectoryTest, FileInThePlaceOfTheDirectory) {
  Put(base_ + "/file", "");
  EXPECT_EQ(DataDirectory::Open(base_ + "/file").status().message(),
            Cat(base_, "/file is not a directory. Choose another data directory: --data-dir DIR"));
  EXPECT_THAT(std::string(DataDirectory::Open(base_ + "/file/below").status().message()),
              testing::StartsWith(Cat("cannot make ", base_, "/file")));
}

// The next process learns the id of the one before it, and so on.
TEST_F(DataDirectoryTest, RemembersWhoRanHereLast) {
  {
    auto directory = DataDirectory::Open(base_ + "/data");
    ASSERT_TRUE(directory.ok());
    ASSERT_TRUE(directory->RecordProcessId(kId).ok());
    EXPECT_EQ(directory->previous_process_id(), std::nullopt);
  }
  auto directory = DataDirectory::Open(base_ + "/data");
  ASSERT_TRUE(directory.ok());
  EXPECT_EQ(directory->previous_process_id(), kId);
  EXPECT_FALSE(directory->RecordProcessId("12").ok());
  EXPECT_FALSE(fs::exists(base_ + "/data/process-id.new"));
}

// A damaged file is taken as no file: the id is only a short cut.
TEST_F(DataDirectoryTest, DamagedProcessIdIsIgnored) {
  for (const std::string text :
       {"", "xyz\n", "00112233445566778899aabbccddeef\n", "zz112233445566778899aabbccddeeff\n"}) {
    {
      ASSERT_TRUE(DataDirectory::Open(base_ + "/data").ok());
    }
    Put(base_ + "/data/process-id", text);
    const auto directory = DataDirectory::Open(base_ + "/data");
    ASSERT_TRUE(directory.ok());
    EXPECT_EQ(directory->previous_process_id(), std::nullopt) << text;
  }
}

// The new text replaces the old one whole.
TEST_F(DataDirectoryTest, ReplaceFileReplaces) {
  ASSERT_TRUE(ReplaceFile(base_ + "/f", "a longer text").ok());
  ASSERT_TRUE(ReplaceFile(base_ + "/f", "short").ok());
  std::ifstream in(base_ + "/f");
  std::string text((std::istreambuf_iterator<char>(in)), {});
  EXPECT_EQ(text, "short");
  EXPECT_THAT(std::string(ReplaceFile(base_ + "/none/f", "x").message()),
              HasSubstr("cannot write " + base_ + "/none/f.new"));
}

}  // namespace
}  // namespace postkeeper
