// The folder on disk that belongs to one postkeeperd.
#ifndef POSTKEEPER_SERVICE_DATA_DIRECTORY_H_
#define POSTKEEPER_SERVICE_DATA_DIRECTORY_H_

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace postkeeper {

// A data directory that this process holds.
//
// Layout:
//   lock            locked (flock) while a process holds the directory; its text is that process's id
//   process-id      the 128-bit id of the replica that ran here last
//   zookeeper/      of the embedded ZooKeeper (embedded_zookeeper.h)
//
// Open makes the directory, with its parents, and takes the lock. The lock goes with the process, however it ends; a
// `lock` file that is left behind means nothing. A directory that is there already is taken only if it is ours (it has
// the file `lock`) or empty, so that a mistyped --data-dir harms nobody. Only its owner may look inside (mode 0700);
// where the directory belongs to somebody else, as a mounted volume may, what is made below it is 0700 all the same.
//
// Not thread-safe; movable. Destroying it lets the lock go.
//
// Errors: each status is one line that says what is wrong, with what, and what to do.
class DataDirectory {
 public:
  // FAILED_PRECONDITION if another process holds it, or if it is not fit; PERMISSION_DENIED or INTERNAL from the file
  // system.
  static absl::StatusOr<DataDirectory> Open(const std::string& path);

  DataDirectory(DataDirectory&& other) noexcept;
  DataDirectory& operator=(DataDirectory&& other) noexcept;
  ~DataDirectory();

  // Absolute, with no symbolic link in it.
  const std::string& path() const { return path_; }
  std::string zookeeper_path() const { return path_ + "/zookeeper"; }

  // The id (32 hexadecimal digits) of the replica that ran here before, which is certainly dead: its lock is ours. So
  // its registration may be removed at once, without waiting for its session to expire. Nothing if none ran here, or
  // if the file does not hold an id: the session's expiry will do.
  std::optional<std::string> previous_process_id() const { return previous_process_id_; }

  // Records this process's id for the next one. `id` is 32 hexadecimal digits. To be called before the replica
  // registers; durable when it returns.
  absl::Status RecordProcessId(std::string_view id);

 private:
  DataDirectory(std::string path, int lock_fd);

  std::string path_;
  int lock_fd_ = -1;
  std::optional<std::string> previous_process_id_;
};

// Puts `text` into a file so that a crash leaves either the old text or the new one, whole. Mode 0600.
absl::Status ReplaceFile(const std::string& path, std::string_view text);

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_DATA_DIRECTORY_H_
