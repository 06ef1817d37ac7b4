#include "service/snapshot_purger.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "zkstore/text.h"

namespace postkeeper {
namespace {

// A snapshot begins with a header of 16 bytes and ends with the Adler-32 of all before it, in 8 bytes, and the text "/"
// behind its length in 4.
constexpr std::string_view kMagic = "ZKSN";
constexpr std::int64_t kHeaderBytes = 16;
constexpr std::int64_t kChecksumBytes = 8;
constexpr std::string_view kEnd("\0\0\0\1/", 5);
constexpr std::int64_t kSealBytes = kChecksumBytes + static_cast<std::int64_t>(kEnd.size());

// Closes a descriptor when it goes.
struct Descriptor {
  int fd;
  explicit Descriptor(int f) : fd(f) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd >= 0) close(fd);
  }
};

absl::Status Failure(std::string_view doing, const std::string& path) {
  return absl::InternalError(Cat("cannot ", doing, " ", path, ": ", std::strerror(errno)));
}

// The zxid in "snapshot.1a" or "log.1a", if `name` is one of those.
std::optional<std::uint64_t> ZxidOf(std::string_view name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return std::nullopt;
  name.remove_prefix(prefix.size());
  std::uint64_t zxid = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), zxid, 16);
  if (error != std::errc() || end != name.data() + name.size()) return std::nullopt;
  return zxid;
}

// False if the file ends before that.
bool ReadAt(int fd, std::int64_t offset, char* out, std::size_t size) {
  while (size > 0) {
    const ssize_t got = pread(fd, out, size, offset);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    out += got;
    offset += got;
    size -= static_cast<std::size_t>(got);
  }
  return true;
}

bool ChecksumIsRight(int fd, std::int64_t size) {
  if (size < kHeaderBytes + kSealBytes) return false;
  std::array<char, kMagic.size()> magic;
  std::array<char, kSealBytes> seal;
  if (!ReadAt(fd, 0, magic.data(), magic.size()) || !ReadAt(fd, size - kSealBytes, seal.data(), seal.size())) {
    return false;
  }
  if (std::string_view(magic.data(), magic.size()) != kMagic) return false;
  if (std::string_view(seal.data() + kChecksumBytes, kEnd.size()) != kEnd) return false;
  std::uint64_t expected = 0;
  for (int i = 0; i < kChecksumBytes; ++i) expected = expected << 8 | static_cast<unsigned char>(seal[i]);

  uLong checksum = adler32(0, nullptr, 0);
  std::vector<char> buffer(1 << 20);
  for (std::int64_t offset = 0; offset < size - kSealBytes;) {
    const auto part = std::min<std::int64_t>(static_cast<std::int64_t>(buffer.size()), size - kSealBytes - offset);
    if (!ReadAt(fd, offset, buffer.data(), static_cast<std::size_t>(part))) return false;
    checksum = adler32(checksum, reinterpret_cast<const Bytef*>(buffer.data()), static_cast<uInt>(part));
    offset += part;
  }
  return checksum == expected;
}

absl::Status SyncDirectory(const std::string& path) {
  const Descriptor directory(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.fd < 0 || fsync(directory.fd) != 0) return Failure("sync", path);
  return absl::OkStatus();
}

}  // namespace

SnapshotPurger::SnapshotPurger(std::string directory, int kept) : directory_(std::move(directory)), kept_(kept) {}

absl::StatusOr<bool> SnapshotPurger::IsSound(const std::string& name) {
  const std::string path = directory_ + "/" + name;
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (file.fd < 0) {
    if (errno == ENOENT) return false;
    return Failure("open", path);
  }
  const auto stamp_now = [&]() -> std::optional<Stamp> {
    struct stat info;
    if (fstat(file.fd, &info) != 0) return std::nullopt;
    return Stamp{info.st_ino, info.st_size, info.st_mtim.tv_sec * 1'000'000'000 + info.st_mtim.tv_nsec};
  };
  const std::optional<Stamp> before = stamp_now();
  if (!before) return Failure("look at", path);
  const auto known = sound_.find(name);
  if (known != sound_.end() && known->second == *before) return true;

  sound_.erase(name);
  if (fsync(file.fd) != 0) return Failure("sync", path);
  if (!ChecksumIsRight(file.fd, before->size)) return false;
  // It was rewritten meanwhile: ZooKeeper does that when it starts twice at the same zxid.
  if (stamp_now() != before) return false;
  sound_.emplace(name, *before);
  return true;
}

absl::Status SnapshotPurger::Remove(const std::string& name, int* count, Removed* removed) const {
  const std::string path = directory_ + "/" + name;
  struct stat info;
  const std::int64_t bytes = stat(path.c_str(), &info) == 0 ? std::int64_t{info.st_blocks} * 512 : 0;
  if (unlink(path.c_str()) != 0) {
    if (errno == ENOENT) return absl::OkStatus();
    return Failure("remove", path);
  }
  ++*count;
  removed->bytes += bytes;
  return absl::OkStatus();
}

absl::StatusOr<SnapshotPurger::Removed> SnapshotPurger::Purge() {
  Files snapshots, logs;
  std::error_code error;
  for (std::filesystem::directory_iterator it(directory_, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (const auto zxid = ZxidOf(name, "snapshot.")) snapshots.emplace(*zxid, name);
    if (const auto zxid = ZxidOf(name, "log.")) logs.emplace(*zxid, name);
  }
  if (error) return absl::InternalError(Cat("cannot read ", directory_, ": ", error.message()));

  // The oldest snapshot to keep.
  std::optional<std::uint64_t> oldest;
  int sound_count = 0;
  for (auto it = snapshots.rbegin(); it != snapshots.rend() && sound_count < kept_; ++it) {
    absl::StatusOr<bool> is_sound = IsSound(it->second);
    if (!is_sound.ok()) return is_sound.status();
    if (!*is_sound) continue;
    ++sound_count;
    oldest = it->first;
  }
  if (sound_count < kept_) return Removed{};

  Removed removed;
  const auto first_kept_snapshot = snapshots.find(*oldest);
  if (first_kept_snapshot != snapshots.begin()) {
    // The names of the kept ones must be as durable as their contents.
    if (absl::Status status = SyncDirectory(directory_); !status.ok()) return status;
    for (auto it = snapshots.begin(); it != first_kept_snapshot; ++it) {
      if (absl::Status status = Remove(it->second, &removed.snapshots, &removed); !status.ok()) return status;
      sound_.erase(it->second);
    }
    if (absl::Status status = SyncDirectory(directory_); !status.ok()) return status;
  }
  // The first log to keep: the last that begins at or before the oldest kept snapshot.
  auto first_kept_log = logs.upper_bound(*oldest);
  if (first_kept_log != logs.begin()) first_kept_log = std::prev(first_kept_log);
  for (auto it = logs.begin(); it != first_kept_log; ++it) {
    if (absl::Status status = Remove(it->second, &removed.logs, &removed); !status.ok()) return status;
  }
  return removed;
}

}  // namespace postkeeper
