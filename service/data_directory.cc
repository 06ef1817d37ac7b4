#include "service/data_directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

constexpr std::size_t kProcessIdDigits = 32;

absl::Status Failure(std::string_view doing, std::string_view path, int error) {
  const std::string text = Cat("cannot ", doing, " ", path, ": ", std::strerror(error));
  switch (error) {
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(Cat(text, ". Choose a data directory of your own: --data-dir DIR"));
    case ENOSPC:
    case EDQUOT:
      return absl::ResourceExhaustedError(text);
    default:
      return absl::InternalError(text);
  }
}

// Reads at most 256 bytes: what these files hold is short.
std::string ReadShort(int fd) {
  std::array<char, 256> buffer;
  const ssize_t size = pread(fd, buffer.data(), buffer.size(), 0);
  return size <= 0 ? std::string() : std::string(buffer.data(), static_cast<std::size_t>(size));
}

absl::Status WriteAll(int fd, std::string_view path, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(fd, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return Failure("write", path, errno);
    text.remove_prefix(static_cast<std::size_t>(written));
  }
  return absl::OkStatus();
}

absl::Status SyncDirectory(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return Failure("open", path, errno);
  const int result = fsync(fd);
  const int error = errno;
  close(fd);
  return result == 0 ? absl::OkStatus() : Failure("write", path, error);
}

// Makes the directory or checks the one that is there.
absl::Status Prepare(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::path parent = fs::path(path).parent_path();
  if (!parent.empty()) fs::create_directories(parent, error);
  if (error) return Failure("make", parent.string(), error.value());
  if (mkdir(path.c_str(), 0700) == 0) return absl::OkStatus();
  if (errno != EEXIST) return Failure("make", path, errno);

  struct stat info;
  if (stat(path.c_str(), &info) != 0) return Failure("look at", path, errno);
  if (!S_ISDIR(info.st_mode)) {
    return absl::FailedPreconditionError(
        Cat(path, " is not a directory. Choose another data directory: --data-dir DIR"));
  }
  if (access(path.c_str(), R_OK | W_OK | X_OK) != 0) return Failure("use", path, errno);
  if (!fs::exists(path + "/lock", error)) {
    for (fs::directory_iterator it(path, error), end; !error && it != end; it.increment(error)) {
      if (it->path().filename() == "lost+found") continue;  // a volume of its own
      return absl::FailedPreconditionError(
          Cat(path, " holds other files (", it->path().filename().string(),
              ") and is not a data directory of postkeeper. Choose an empty one: --data-dir DIR"));
    }
    if (error) return Failure("read", path, error.value());
  }
  const bool is_open_to_others = (info.st_mode & 0077) != 0;
  if (is_open_to_others && info.st_uid == geteuid() && chmod(path.c_str(), 0700) != 0) {
    return Failure("close to others", path, errno);
  }
  return absl::OkStatus();
}

// Returns the descriptor that holds the lock.
absl::StatusOr<int> Lock(const std::string& directory) {
  const std::string path = directory + "/lock";
  // Not inherited by children: a child that outlives us must not keep the directory.
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return Failure("open", path, errno);
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    std::string holder(absl::StripAsciiWhitespace(ReadShort(fd)));
    close(fd);
    if (error != EWOULDBLOCK) return Failure("lock", path, error);
    const bool is_number = !holder.empty() && std::all_of(holder.begin(), holder.end(), absl::ascii_isdigit);
    return absl::FailedPreconditionError(Cat("the data directory ", directory, " is in use by ",
                                             is_number ? Cat("process ", holder) : std::string("another process"),
                                             ". Stop that one", is_number ? Cat(" (kill ", holder, ")") : std::string(),
                                             ", or give this one a directory of its own: --data-dir DIR"));
  }
  const std::string text = Cat(getpid(), "\n");
  absl::Status written = ftruncate(fd, 0) == 0 ? WriteAll(fd, path, text) : Failure("write", path, errno);
  if (!written.ok()) {
    close(fd);
    return written;
  }
  return fd;
}

bool IsProcessId(std::string_view text) {
  return text.size() == kProcessIdDigits && std::all_of(text.begin(), text.end(), absl::ascii_isxdigit);
}

std::optional<std::string> ReadProcessId(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) return std::nullopt;
  std::string text = ReadShort(fd);
  close(fd);
  if (text.ends_with('\n')) text.pop_back();
  if (!IsProcessId(text)) return std::nullopt;
  return text;
}

}  // namespace

absl::Status ReplaceFile(const std::string& path, std::string_view text) {
  const std::string fresh = path + ".new";
  const int fd = open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return Failure("write", fresh, errno);
  absl::Status status = WriteAll(fd, fresh, text);
  if (status.ok() && fsync(fd) != 0) status = Failure("write", fresh, errno);
  close(fd);
  if (status.ok() && rename(fresh.c_str(), path.c_str()) != 0) status = Failure("write", path, errno);
  if (!status.ok()) return status;
  return SyncDirectory(std::filesystem::path(path).parent_path().string());
}

absl::StatusOr<DataDirectory> DataDirectory::Open(const std::string& path) {
  if (path.empty()) return absl::FailedPreconditionError("no data directory is given. Name one: --data-dir DIR");
  // A separator at the end would make the directory its own parent.
  std::error_code error;
  const std::string absolute = (std::filesystem::absolute(path, error) / "").lexically_normal().parent_path().string();
  if (error) return Failure("find", path, error.value());
  if (absl::Status status = Prepare(absolute); !status.ok()) return status;
  const std::filesystem::path real = std::filesystem::canonical(absolute, error);
  if (error) return Failure("find", absolute, error.value());
  absl::StatusOr<int> lock = Lock(real.string());
  if (!lock.ok()) return lock.status();
  DataDirectory directory(real.string(), *lock);
  directory.previous_process_id_ = ReadProcessId(directory.path_ + "/process-id");
  return directory;
}

DataDirectory::DataDirectory(std::string path, int lock_fd) : path_(std::move(path)), lock_fd_(lock_fd) {}

DataDirectory::DataDirectory(DataDirectory&& other) noexcept
    : path_(std::move(other.path_)),
      lock_fd_(std::exchange(other.lock_fd_, -1)),
      previous_process_id_(std::move(other.previous_process_id_)) {}

DataDirectory& DataDirectory::operator=(DataDirectory&& other) noexcept {
  if (this == &other) return *this;
  if (lock_fd_ >= 0) close(lock_fd_);
  path_ = std::move(other.path_);
  lock_fd_ = std::exchange(other.lock_fd_, -1);
  previous_process_id_ = std::move(other.previous_process_id_);
  return *this;
}

DataDirectory::~DataDirectory() {
  if (lock_fd_ >= 0) close(lock_fd_);
}

absl::Status DataDirectory::RecordProcessId(std::string_view id) {
  if (!IsProcessId(id)) return absl::InternalError(Cat("'", id, "' is not a process id"));
  return ReplaceFile(path_ + "/process-id", Cat(id, "\n"));
}

}  // namespace postkeeper
