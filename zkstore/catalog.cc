#include "zkstore/catalog.h"

#include <algorithm>

#include "postkeeper/storage/v1/records.pb.h"
#include "zkstore/batch.h"
#include "zkstore/errors.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

using std::chrono::milliseconds;

std::int64_t Milliseconds(Duration duration) { return std::chrono::duration_cast<milliseconds>(duration).count(); }

std::string Encode(const LogEntry& entry) {
  if (const QueueSettings* queue = std::get_if<QueueSettings>(&entry.settings)) {
    storage::v1::QueueRecord record;
    record.set_uid(entry.uid.ToBytes());
    record.set_lease_duration_ms(Milliseconds(queue->lease_duration));
    record.set_retry_backoff_ms(Milliseconds(queue->retry_backoff));
    record.set_retry_backoff_max_ms(Milliseconds(queue->retry_backoff_max));
    record.set_max_messages(queue->max_messages);
    record.set_max_bytes(queue->max_bytes);
    record.set_create_time_ms(entry.create_time.time_since_epoch().count());
    return record.SerializeAsString();
  }
  const TopicSettings& topic = std::get<TopicSettings>(entry.settings);
  storage::v1::TopicRecord record;
  record.set_uid(entry.uid.ToBytes());
  record.set_retention_ms(Milliseconds(topic.retention));
  record.set_max_messages(topic.max_messages);
  record.set_max_bytes(topic.max_bytes);
  record.set_create_time_ms(entry.create_time.time_since_epoch().count());
  return record.SerializeAsString();
}

std::string EmptyHeadRecord() {
  storage::v1::HeadRecord record;
  record.set_oldest_position(Position(Layout::kFirstSegment, 0, 0).value());
  return record.SerializeAsString();
}

absl::Status OutcomeUnknown(std::string_view what) {
  return MakeError(Reason::kOutcomeUnknown, Cat("ZooKeeper stopped answering while ", what));
}

}  // namespace

Catalog::Catalog(Environment& environment, zk::Client& client, const Layout& layout)
    : environment_(environment), client_(client), layout_(layout) {}

std::string Catalog::PathOf(const LogName& name) const {
  return name.kind == LogKind::kQueue ? layout_.Queue(name.name_space, name.id)
                                      : layout_.Topic(name.name_space, name.id);
}

// Makes a persistent znode and its parents, or finds them.
Task<absl::Status> Catalog::EnsurePath(std::string path) {
  zk::Response made = co_await client_.Create(path, "");
  if (made.code == zk::Code::kNoNode && path != "/") {
    if (absl::Status status = co_await EnsurePath(ParentPath(path)); !status.ok()) co_return status;
    made = co_await client_.Create(path, "");
  }
  if (made.code == zk::Code::kOk || made.code == zk::Code::kNodeExists) co_return absl::OkStatus();
  co_return UnavailableError(made, "make a znode of the store");
}

Task<absl::Status> Catalog::Open() {
  storage::v1::Format format;
  format.set_version(Layout::kFormatVersion);
  if (absl::Status status = co_await EnsurePath(layout_.root()); !status.ok()) co_return status;
  zk::Response made = co_await client_.Create(layout_.Format(), format.SerializeAsString());
  if (made.code != zk::Code::kOk && made.code != zk::Code::kNodeExists) {
    co_return UnavailableError(made, "make a znode of the store");
  }
  const zk::Response read = co_await client_.Get(layout_.Format());
  if (read.code != zk::Code::kOk) co_return UnavailableError(read, "tell the store's format");
  if (!format.ParseFromString(read.data) || format.version() < 1) {
    co_return MakeError(Reason::kStoreCorrupt, Cat(layout_.Format(), " is not a postkeeper store"),
                        {.path = layout_.Format()});
  }
  if (format.version() > Layout::kFormatVersion) {
    co_return MakeError(Reason::kStoreFormatNewer,
                        Cat("the store at ", layout_.root(), " has format ", format.version(),
                            ", and this postkeeperd knows ", Layout::kFormatVersion, ". Run a newer postkeeperd"));
  }
  const std::vector<std::string> directories = {layout_.Replicas(), layout_.Namespaces(), layout_.Data(),
                                                layout_.Trash()};
  for (const std::string& directory : directories) {
    if (absl::Status status = co_await EnsurePath(directory); !status.ok()) co_return status;
  }
  co_return absl::OkStatus();
}

absl::StatusOr<LogEntry> Catalog::Parse(const LogName& name, const zk::Response& read) const {
  const absl::Status corrupt =
      MakeError(Reason::kStoreCorrupt, "the configuration cannot be read", {.path = PathOf(name)});
  LogEntry entry;
  entry.name = name;
  entry.version = read.stat.version;
  std::string uid;
  if (name.kind == LogKind::kQueue) {
    storage::v1::QueueRecord record;
    if (!record.ParseFromString(read.data)) return corrupt;
    uid = record.uid();
    entry.create_time = WallTime(milliseconds(record.create_time_ms()));
    entry.settings = QueueSettings{.lease_duration = milliseconds(record.lease_duration_ms()),
                                   .retry_backoff = milliseconds(record.retry_backoff_ms()),
                                   .retry_backoff_max = milliseconds(record.retry_backoff_max_ms()),
                                   .max_messages = record.max_messages(),
                                   .max_bytes = record.max_bytes()};
  } else {
    storage::v1::TopicRecord record;
    if (!record.ParseFromString(read.data)) return corrupt;
    uid = record.uid();
    entry.create_time = WallTime(milliseconds(record.create_time_ms()));
    entry.settings = TopicSettings{.retention = milliseconds(record.retention_ms()),
                                   .max_messages = record.max_messages(),
                                   .max_bytes = record.max_bytes()};
  }
  const std::optional<Uid> parsed = Uid::FromBytes(uid);
  if (!parsed) return corrupt;
  entry.uid = *parsed;
  return entry;
}

Task<absl::StatusOr<LogEntry>> Catalog::Get(LogName name) {
  const zk::Response read = co_await client_.Get(PathOf(name));
  if (read.code == zk::Code::kNoNode) co_return absl::NotFoundError("no such name");
  if (read.code != zk::Code::kOk) co_return UnavailableError(read, "look the name up");
  co_return Parse(name, read);
}

Task<absl::StatusOr<Catalog::Created>> Catalog::Create(LogName name, LogSettings settings) {
  LogEntry entry{.name = name,
                 .uid = Uid::Make(environment_),
                 .version = 0,
                 .create_time = environment_.WallNow(),
                 .settings = std::move(settings)};
  const std::string path = PathOf(name);
  std::vector<zk::Op> ops;
  ops.push_back(zk::Op::Create(path, Encode(entry)));
  ops.push_back(zk::Op::Create(layout_.LogData(entry.uid), ""));
  ops.push_back(zk::Op::Create(layout_.Owner(entry.uid), NobodysOwnerRecord()));
  ops.push_back(zk::Op::Create(layout_.Head(entry.uid), EmptyHeadRecord()));
  for (const std::string& directory : layout_.LogDirectories(entry.uid)) ops.push_back(zk::Op::Create(directory, ""));
  ops.push_back(zk::Op::Create(layout_.Segment(entry.uid, Layout::kFirstSegment), ""));

  zk::Response made = co_await client_.Multi(ops);
  if (made.code == zk::Code::kNoNode) {
    if (absl::Status status = co_await EnsurePath(ParentPath(path)); !status.ok()) co_return status;
    made = co_await client_.Multi(ops);
  }
  if (made.code == zk::Code::kOk) co_return Created{std::move(entry), true};
  if (zk::IsDefinite(made.code) && made.code != zk::Code::kNodeExists) {
    co_return UnavailableError(made, "create it");
  }
  absl::StatusOr<LogEntry> existing = co_await Get(name);
  if (existing.ok()) {
    const bool is_ours = existing->uid == entry.uid;
    co_return Created{*std::move(existing), is_ours};
  }
  if (made.code == zk::Code::kNodeExists) co_return UnavailableError(made, "create it");  // deleted since; try again
  co_return OutcomeUnknown("it was created");
}

Task<absl::StatusOr<std::vector<LogEntry>>> Catalog::List(LogKind kind, std::string name_space, std::string after,
                                                          int limit) {
  const std::string parent = kind == LogKind::kQueue ? layout_.Queues(name_space) : layout_.Topics(name_space);
  const zk::Response names = co_await client_.Children(parent);
  std::vector<LogEntry> entries;
  if (names.code == zk::Code::kNoNode) co_return entries;
  if (names.code != zk::Code::kOk) co_return UnavailableError(names, "list the names");
  for (auto at = std::upper_bound(names.children.begin(), names.children.end(), after);
       at != names.children.end() && static_cast<int>(entries.size()) < limit; ++at) {
    const LogName name{kind, name_space, *at};
    absl::StatusOr<LogEntry> entry = co_await Get(name);
    if (absl::IsNotFound(entry.status())) continue;  // deleted since
    if (!entry.ok()) co_return entry.status();
    entries.push_back(*std::move(entry));
  }
  co_return entries;
}

Task<absl::StatusOr<std::vector<LogName>>> Catalog::ListAll() {
  std::vector<LogName> all;
  const zk::Response name_spaces = co_await client_.Children(layout_.Namespaces());
  if (name_spaces.code != zk::Code::kOk) co_return UnavailableError(name_spaces, "list the namespaces");
  const std::vector<LogKind> kinds = {LogKind::kQueue, LogKind::kTopic};
  for (const std::string& name_space : name_spaces.children) {
    for (LogKind kind : kinds) {
      const std::string parent = kind == LogKind::kQueue ? layout_.Queues(name_space) : layout_.Topics(name_space);
      const zk::Response names = co_await client_.Children(parent);
      if (names.code == zk::Code::kNoNode) continue;
      if (names.code != zk::Code::kOk) co_return UnavailableError(names, "list the names");
      for (const std::string& id : names.children) all.push_back({kind, name_space, id});
    }
  }
  co_return all;
}

Task<absl::StatusOr<LogEntry>> Catalog::Update(LogEntry entry) {
  const zk::Response set = co_await client_.Set(PathOf(entry.name), Encode(entry), entry.version);
  if (set.code == zk::Code::kOk) {
    ++entry.version;
    co_return entry;
  }
  if (set.code == zk::Code::kNoNode) co_return absl::NotFoundError("no such name");
  if (set.code == zk::Code::kBadVersion) {
    co_return MakeError(Reason::kEtagMismatch, "it was changed since it was read. Read it again and repeat");
  }
  if (zk::IsDefinite(set.code)) co_return UnavailableError(set, "change it");
  absl::StatusOr<LogEntry> now = co_await Get(entry.name);
  if (now.ok() && now->uid == entry.uid && now->version == entry.version + 1 && now->settings == entry.settings) {
    co_return now;
  }
  co_return OutcomeUnknown("it was changed");
}

Task<absl::Status> Catalog::Delete(LogEntry entry, OwnerView held) {
  constexpr int kAttemptsMax = 5;  // a segment may be sealed, and another begun, between the look and the write
  for (int attempt = 0; attempt < kAttemptsMax; ++attempt) {
    const zk::Response segments = co_await client_.Children(layout_.Segments(entry.uid));
    if (segments.code != zk::Code::kOk) co_return UnavailableError(segments, "delete it");
    std::uint64_t last = 0;
    for (const std::string& name : segments.children) last = std::max(last, Layout::ParseSegment(name).value_or(0));
    std::vector<zk::Op> ops;
    ops.push_back(zk::Op::Delete(PathOf(entry.name), entry.version));
    ops.push_back(zk::Op::Create(layout_.Trash(entry.uid), ""));
    ops.push_back(MarkDeletedOp(layout_, entry.uid, held));
    ops.push_back(zk::Op::Set(layout_.Segment(entry.uid, last), "", kSegmentOpen));
    const zk::Response done = co_await client_.Multi(std::move(ops), zk::Priority::kSettle);
    if (done.code == zk::Code::kOk) co_return absl::OkStatus();
    if (!zk::IsDefinite(done.code)) {
      const zk::Response trash = co_await client_.Exists(layout_.Trash(entry.uid));
      if (trash.code == zk::Code::kOk) co_return absl::OkStatus();
      co_return OutcomeUnknown("it was deleted");
    }
    if (done.results.size() != 4) co_return UnavailableError(done, "delete it");
    if (done.results[0].code == zk::Code::kBadVersion || done.results[0].code == zk::Code::kNoNode) {
      co_return MakeError(Reason::kEtagMismatch, "it was changed since it was read. Read it again and repeat");
    }
    if (done.results[2].code == zk::Code::kBadVersion) {
      co_return MakeError(Reason::kNoOwner, "it changed its owner while it was deleted");
    }
  }
  co_return MakeError(Reason::kZookeeperUnavailable, "it is written to too fast to be deleted now");
}

// Deletes all below `path`; true if nothing is left.
Task<absl::StatusOr<bool>> Catalog::EmptyDirectory(std::string path, int& requests_left, bool keeps_owner) {
  const zk::Response children = co_await client_.Children(path);
  if (children.code == zk::Code::kNoNode) co_return true;
  if (children.code != zk::Code::kOk) co_return UnavailableError(children, "list what is to be removed");
  --requests_left;
  for (const std::string& name : children.children) {
    if (keeps_owner && name == "owner") continue;
    if (requests_left <= 0) co_return false;
    const std::string child = Cat(path, "/", name);
    --requests_left;
    zk::Response gone = co_await client_.Delete(child, zk::kAnyVersion);
    if (gone.code == zk::Code::kNotEmpty) {
      absl::StatusOr<bool> is_empty = co_await EmptyDirectory(child, requests_left, false);
      if (!is_empty.ok() || !*is_empty) co_return is_empty;
      gone = co_await client_.Delete(child, zk::kAnyVersion);
    }
    if (gone.code != zk::Code::kOk && gone.code != zk::Code::kNoNode) co_return UnavailableError(gone, "remove data");
  }
  co_return true;
}

Task<absl::StatusOr<bool>> Catalog::Sweep(int requests_max) {
  const zk::Response trash = co_await client_.Children(layout_.Trash());
  if (trash.code != zk::Code::kOk) co_return UnavailableError(trash, "list what is to be removed");
  for (const std::string& name : trash.children) {
    const std::optional<Uid> uid = Uid::FromHex(name);
    if (!uid) continue;
    // The owner record goes last: until then it tells late writers that the log is deleted.
    absl::StatusOr<bool> is_empty = co_await EmptyDirectory(layout_.LogData(*uid), requests_max, true);
    if (!is_empty.ok() || !*is_empty) co_return is_empty;
    const std::vector<std::string> last = {layout_.Owner(*uid), layout_.LogData(*uid), layout_.Trash(*uid)};
    for (const std::string& path : last) {
      const zk::Response gone = co_await client_.Delete(path, zk::kAnyVersion);
      if (gone.code != zk::Code::kOk && gone.code != zk::Code::kNoNode) co_return UnavailableError(gone, "remove data");
    }
  }
  co_return true;
}

}  // namespace postkeeper
