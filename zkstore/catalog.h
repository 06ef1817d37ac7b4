// Which queues and topics there are, and what they are set to.
#ifndef POSTKEEPER_ZKSTORE_CATALOG_H_
#define POSTKEEPER_ZKSTORE_CATALOG_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "zkstore/client.h"
#include "zkstore/layout.h"
#include "zkstore/owner.h"
#include "zkstore/settings.h"

namespace postkeeper {

enum class LogKind { kQueue, kTopic };

// Names what the catalog holds. The parts are checked names (service/names.h), never raw input.
struct LogName {
  LogKind kind = LogKind::kQueue;
  std::string name_space;
  std::string id;

  friend auto operator<=>(const LogName&, const LogName&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const LogName& name) {
    return H::combine(std::move(h), name.kind, name.name_space, name.id);
  }
};

using LogSettings = std::variant<QueueSettings, TopicSettings>;

// One queue or topic as it stands in the catalog.
struct LogEntry {
  LogName name;
  Uid uid;                   // of this incarnation; never used again
  std::int32_t version = 0;  // of the configuration; with the uid it is the etag
  WallTime create_time{};
  LogSettings settings;
};

// Reads and writes names/. Stateless besides the client; all calls are thread-safe and may be repeated.
// Errors: ZOOKEEPER_UNAVAILABLE, OUTCOME_UNKNOWN (a write whose reply was lost and whose effect could not be read
// either), STORE_CORRUPT.
class Catalog {
 public:
  Catalog(Environment& environment, zk::Client& client, const Layout& layout);

  // Makes the root, or finds it. STORE_FORMAT_NEWER if a newer postkeeper wrote it.
  Task<absl::Status> Open();

  struct Created {
    LogEntry entry;
    bool is_new = false;  // false: it was there, with settings of its own
  };
  Task<absl::StatusOr<Created>> Create(LogName name, LogSettings settings);
  // absl::NotFound without a reason: the caller has the words.
  Task<absl::StatusOr<LogEntry>> Get(LogName name);
  // At most `limit`, in the order of names, behind `after`.
  Task<absl::StatusOr<std::vector<LogEntry>>> List(LogKind kind, std::string name_space, std::string after, int limit);
  Task<absl::StatusOr<std::vector<LogName>>> ListAll();
  // ETAG_MISMATCH if the entry has changed since it was read.
  Task<absl::StatusOr<LogEntry>> Update(LogEntry entry);
  // Ends the log: the name is free, appenders and readers are told, and the data is left to Sweep. ETAG_MISMATCH if the
  // entry has changed since it was read; NO_OWNER if `held` is not the owner any more.
  Task<absl::Status> Delete(LogEntry entry, OwnerView held);

  // Removes data of deleted logs, at most about `requests_max` requests' worth. Returns true when nothing is left.
  Task<absl::StatusOr<bool>> Sweep(int requests_max);

 private:
  std::string PathOf(const LogName& name) const;
  Task<absl::Status> EnsurePath(std::string path);
  Task<absl::StatusOr<bool>> EmptyDirectory(std::string path, int& requests_left, bool keeps_owner);
  absl::StatusOr<LogEntry> Parse(const LogName& name, const zk::Response& read) const;

  Environment& environment_;
  zk::Client& client_;
  const Layout layout_;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_ZKSTORE_CATALOG_H_
