#include "service/broker.h"

#include <algorithm>
#include <asio/post.hpp>

#include "postkeeper/storage/v1/records.pb.h"
#include "service/logging.h"
#include "zkstore/errors.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

constexpr Duration kRetryPause = std::chrono::milliseconds(200);
constexpr Duration kSweepInterval = std::chrono::seconds(30);
// Requests of one sweep, so that it never gets in the way of the work.
constexpr int kSweepRequestsMax = 2000;
// A session is asked something so often within its timeout, so that the age of the latest answer says something.
constexpr int kHeartbeatsPerTimeout = 6;

LogName LogNameOf(const Name& name) {
  return {name.kind == Name::Kind::kQueue ? LogKind::kQueue : LogKind::kTopic, name.name_space, name.id};
}

Name NameOf(const LogName& name) {
  return {name.kind == LogKind::kQueue ? Name::Kind::kQueue : Name::Kind::kTopic, name.name_space, name.id, {}};
}

absl::Status WithResource(const absl::Status& status, const Name& name) {
  ErrorDetails details = DetailsOf(status);
  if (details.resource.empty()) details.resource = name.Full();
  return WithDetails(status, details);
}

}  // namespace

Broker::Broker(EngineContext& context, Options options) : context_(context), options_(std::move(options)) {}

Broker::~Broker() = default;

// ---- Starting

Task<absl::Status> Broker::Start() {
  std::string last_error;
  while (!is_draining_) {
    const absl::Status status = co_await StartOnce();
    if (status.ok()) {
      is_started_ = true;
      Spawn(context_.environment.executor(), KeepSessionAlive());
      Spawn(context_.environment.executor(), SweepTrash());
      co_return absl::OkStatus();
    }
    if (HasReason(status, Reason::kStoreFormatNewer) || HasReason(status, Reason::kStoreCorrupt)) co_return status;
    LogWarning("waiting for ZooKeeper", {{"error", status.message()}});
    co_await SleepFor(context_.environment, kRetryPause);
  }
  co_return MakeError(Reason::kReplicaDraining, "this replica is shutting down");
}

Task<absl::Status> Broker::StartOnce() {
  if (absl::Status status = co_await context_.catalog.Open(); !status.ok()) co_return status;
  if (options_.dead_predecessor) {
    const zk::Response gone =
        co_await context_.client.Delete(context_.layout.Replica(*options_.dead_predecessor), zk::kAnyVersion);
    if (gone.code != zk::Code::kOk && gone.code != zk::Code::kNoNode) {
      co_return UnavailableError(gone, "remove the registration of the process that ran here before");
    }
  }
  if (absl::Status status = co_await Register(); !status.ok()) co_return status;
  co_return co_await OpenAll();
}

// Makes the one ephemeral of this process, under the present session.
Task<absl::Status> Broker::Register() {
  const std::int64_t session_id = context_.client.session().session_id;
  storage::v1::ReplicaRecord record;
  record.set_address(context_.address);
  record.set_version(options_.version);
  record.set_start_time_ms(context_.environment.WallNow().time_since_epoch().count());
  const std::string path = context_.layout.Replica(context_.process);
  const std::string data = record.SerializeAsString();
  zk::Response made = co_await context_.client.Create(path, data, zk::CreateMode::kEphemeral);
  if (made.code == zk::Code::kNodeExists) {
    // Ours, of this session (a reply was lost) or of the one before.
    const zk::Response existing = co_await context_.client.Exists(path);
    if (existing.code == zk::Code::kOk && existing.stat.ephemeral_owner != session_id) {
      co_await context_.client.Delete(path, zk::kAnyVersion);
      made = co_await context_.client.Create(path, data, zk::CreateMode::kEphemeral);
    } else {
      made.code = existing.code;
    }
  }
  if (made.code != zk::Code::kOk) co_return UnavailableError(made, "register this replica");
  registered_session_ = session_id;
  co_return absl::OkStatus();
}

Task<absl::Status> Broker::OpenAll() {
  absl::StatusOr<std::vector<LogName>> names = co_await context_.catalog.ListAll();
  if (!names.ok()) co_return names.status();
  for (const LogName& name : *names) {
    absl::StatusOr<LogEntry> entry = co_await context_.catalog.Get(name);
    if (absl::IsNotFound(entry.status())) continue;
    if (!entry.ok()) co_return entry.status();
    Adopt(*entry);
  }
  co_return absl::OkStatus();
}

bool Broker::is_ready() const {
  return is_started_ && !is_draining_ && context_.client.session().state == zk::SessionState::kConnected;
}

// ---- Engines

void Broker::Adopt(const LogEntry& entry) {
  if (entry.name.kind == LogKind::kQueue) {
    AdoptEngine(queues_, entry);
  } else {
    AdoptEngine(topics_, entry);
  }
}

// The engine of this entry: the one that is there, unless the name has another incarnation now.
template <typename Engine>
std::shared_ptr<Engine> Broker::AdoptEngine(absl::flat_hash_map<LogName, std::shared_ptr<Engine>>& engines,
                                            const LogEntry& entry) {
  std::shared_ptr<Engine> former;
  std::shared_ptr<Engine> engine;
  {
    absl::MutexLock lock(&mutex_);
    std::shared_ptr<Engine>& place = engines[entry.name];
    if (place && place->uid() == entry.uid) return place;
    former = std::exchange(place, std::make_shared<Engine>(context_, entry, NameOf(entry.name).Full()));
    engine = place;
    engine->Start();
  }
  if (former) CloseFormer(std::move(former));
  return engine;
}

// An engine whose log is gone, or has become another one.
template <typename Engine>
void Broker::CloseFormer(std::shared_ptr<Engine> former) {
  asio::post(former->strand(), [former] { Spawn(former->strand(), former->Close(Duration::zero())); });
}

// What was deleted through other replicas.
void Broker::CloseGone() {
  auto take_gone = [](auto& engines) {
    std::vector<typename std::remove_cvref_t<decltype(engines)>::mapped_type> gone;
    absl::erase_if(engines, [&gone](const auto& entry) {
      if (entry.second->is_gone()) gone.push_back(entry.second);
      return entry.second->is_gone();
    });
    return gone;
  };
  std::vector<std::shared_ptr<QueueEngine>> queues;
  std::vector<std::shared_ptr<TopicEngine>> topics;
  {
    absl::MutexLock lock(&mutex_);
    queues = take_gone(queues_);
    topics = take_gone(topics_);
  }
  for (std::shared_ptr<QueueEngine>& queue : queues) CloseFormer(std::move(queue));
  for (std::shared_ptr<TopicEngine>& topic : topics) CloseFormer(std::move(topic));
}

std::shared_ptr<QueueEngine> Broker::FindQueue(const Name& name) const {
  absl::MutexLock lock(&mutex_);
  auto found = queues_.find(LogNameOf(name));
  return found == queues_.end() || found->second->is_gone() ? nullptr : found->second;
}

std::shared_ptr<TopicEngine> Broker::FindTopic(const Name& name) const {
  absl::MutexLock lock(&mutex_);
  auto found = topics_.find(LogNameOf(name));
  return found == topics_.end() || found->second->is_gone() ? nullptr : found->second;
}

Task<absl::StatusOr<LogEntry>> Broker::GetOrCreate(Name name, LogSettings defaults) {
  if (!is_started_) co_return MakeError(Reason::kZookeeperUnavailable, "there is no connection to ZooKeeper yet");
  absl::StatusOr<LogEntry> entry = co_await context_.catalog.Get(LogNameOf(name));
  if (!absl::IsNotFound(entry.status())) co_return entry;
  if (!options_.creates_automatically || name.name_space != kDefaultNamespace) co_return NotFound(name);
  absl::StatusOr<Catalog::Created> created = co_await context_.catalog.Create(LogNameOf(name), std::move(defaults));
  if (!created.ok()) co_return created.status();
  if (created->is_new) LogInfo("created at first use", {{"name", name.Full()}});
  co_return std::move(created->entry);
}

Task<absl::StatusOr<std::shared_ptr<QueueEngine>>> Broker::OpenQueue(Name name) {
  if (std::shared_ptr<QueueEngine> engine = FindQueue(name)) co_return engine;
  absl::StatusOr<LogEntry> entry = co_await GetOrCreate(name, QueueSettings());
  if (!entry.ok()) co_return entry.status();
  if (is_draining_) co_return MakeError(Reason::kReplicaDraining, "this replica is shutting down");
  co_return AdoptEngine(queues_, *entry);
}

Task<absl::StatusOr<std::shared_ptr<TopicEngine>>> Broker::OpenTopic(Name name) {
  if (std::shared_ptr<TopicEngine> engine = FindTopic(name)) co_return engine;
  absl::StatusOr<LogEntry> entry = co_await GetOrCreate(name, TopicSettings());
  if (!entry.ok()) co_return entry.status();
  if (is_draining_) co_return MakeError(Reason::kReplicaDraining, "this replica is shutting down");
  co_return AdoptEngine(topics_, *entry);
}

absl::Status Broker::NotFound(const Name& name) const {
  const bool is_queue = name.kind == Name::Kind::kQueue;
  const std::string_view kind = is_queue ? "queue" : "topic";
  return MakeError(
      is_queue ? Reason::kQueueNotFound : Reason::kTopicNotFound,
      Cat("there is no ", kind, " ", name.Full(), ". Create it: postkeeper ", kind, " create ", name.Short()),
      {.resource = name.Full()});
}

// ---- Administration

Task<absl::StatusOr<LogEntry>> Broker::Create(Name name, LogSettings settings) {
  if (!is_started_) co_return MakeError(Reason::kZookeeperUnavailable, "there is no connection to ZooKeeper yet");
  const LogSettings wanted = settings;
  absl::StatusOr<Catalog::Created> created = co_await context_.catalog.Create(LogNameOf(name), std::move(settings));
  if (!created.ok()) co_return WithResource(created.status(), name);
  if (!created->is_new && created->entry.settings != wanted) {
    const std::string_view field =
        name.kind == Name::Kind::kQueue
            ? FirstDifference(std::get<QueueSettings>(created->entry.settings), std::get<QueueSettings>(wanted))
            : FirstDifference(std::get<TopicSettings>(created->entry.settings), std::get<TopicSettings>(wanted));
    co_return MakeError(Reason::kOtherSettings,
                        Cat(name.Full(), " exists, and its ", field, " is another. Look: postkeeper ",
                            name.kind == Name::Kind::kQueue ? "queue" : "topic", " show ", name.Full(),
                            "; change it: postkeeper ", name.kind == Name::Kind::kQueue ? "queue" : "topic", " update"),
                        {.resource = name.Full(), .field = std::string(field)});
  }
  if (created->is_new) LogInfo("created", {{"name", name.Full()}});
  Adopt(created->entry);
  co_return std::move(created->entry);
}

Task<absl::StatusOr<LogEntry>> Broker::Get(Name name) {
  absl::StatusOr<LogEntry> entry = co_await context_.catalog.Get(LogNameOf(name));
  if (absl::IsNotFound(entry.status())) co_return NotFound(name);
  co_return entry;
}

Task<absl::StatusOr<std::vector<LogEntry>>> Broker::List(CheckedList list, LogKind kind) {
  co_return co_await context_.catalog.List(kind, list.name_space, list.after, list.page_size);
}

void Broker::SpreadEntry(const LogEntry& entry) {
  const Name name = NameOf(entry.name);
  auto set = [&entry](auto engine) {
    if (!engine || engine->uid() != entry.uid) return;
    asio::post(engine->strand(), [engine, entry] { engine->SetEntry(entry); });
  };
  if (entry.name.kind == LogKind::kQueue) {
    set(FindQueue(name));
  } else {
    set(FindTopic(name));
  }
}

template <typename Settings, typename Checked>
Task<absl::StatusOr<LogEntry>> Broker::Update(Checked update) {
  constexpr int kAttemptsMax = 5;  // without an etag, somebody else's change in between is no reason to fail
  for (int attempt = 0; attempt < kAttemptsMax; ++attempt) {
    absl::StatusOr<LogEntry> entry = co_await context_.catalog.Get(LogNameOf(update.name));
    if (absl::IsNotFound(entry.status())) {
      if (!update.allow_missing) co_return NotFound(update.name);
      if (!update.settings_if_missing.ok()) co_return update.settings_if_missing.status();
      co_return co_await Create(update.name, *update.settings_if_missing);
    }
    if (!entry.ok()) co_return entry.status();
    if (update.etag && (update.etag->uid != entry->uid || update.etag->version != entry->version)) {
      co_return MakeError(Reason::kEtagMismatch, Cat(update.name.Full(), " was changed since it was read"),
                          {.resource = update.name.Full()});
    }
    const absl::StatusOr<Settings> settings = update.changes.ApplyTo(std::get<Settings>(entry->settings));
    if (!settings.ok()) co_return settings.status();
    entry->settings = *settings;
    absl::StatusOr<LogEntry> updated = co_await context_.catalog.Update(*entry);
    if (HasReason(updated.status(), Reason::kEtagMismatch) && !update.etag) continue;
    if (absl::IsNotFound(updated.status())) continue;
    if (!updated.ok()) co_return WithResource(updated.status(), update.name);
    SpreadEntry(*updated);
    co_return updated;
  }
  co_return MakeError(Reason::kEtagMismatch, Cat(update.name.Full(), " is changed too often at the moment"),
                      {.resource = update.name.Full()});
}

Task<absl::StatusOr<LogEntry>> Broker::UpdateQueue(CheckedUpdateQueue update) {
  return Update<QueueSettings>(std::move(update));
}

Task<absl::StatusOr<LogEntry>> Broker::UpdateTopic(CheckedUpdateTopic update) {
  return Update<TopicSettings>(std::move(update));
}

template <typename Engine>
Task<absl::Status> Broker::DeleteEngine(std::shared_ptr<Engine> engine, Name name) {
  absl::Status status = co_await asio::co_spawn(engine->strand(), engine->Delete(), asio::use_awaitable);
  if (!status.ok()) co_return WithResource(status, name);
  Forget(name, engine->uid());
  LogInfo("deleted", {{"name", name.Full()}});
  co_return absl::OkStatus();
}

void Broker::Forget(const Name& name, const Uid& uid) {
  absl::MutexLock lock(&mutex_);
  auto forget = [&](auto& engines) {
    auto found = engines.find(LogNameOf(name));
    if (found != engines.end() && found->second->uid() == uid) engines.erase(found);
  };
  if (name.kind == Name::Kind::kQueue) {
    forget(queues_);
  } else {
    forget(topics_);
  }
}

Task<absl::Status> Broker::Delete(CheckedDelete request) {
  absl::StatusOr<LogEntry> entry = co_await context_.catalog.Get(LogNameOf(request.name));
  if (absl::IsNotFound(entry.status())) {
    co_return request.allow_missing ? absl::OkStatus() : NotFound(request.name);
  }
  if (!entry.ok()) co_return entry.status();
  if (request.etag && (request.etag->uid != entry->uid || request.etag->version != entry->version)) {
    co_return MakeError(Reason::kEtagMismatch, Cat(request.name.Full(), " was changed since it was read"),
                        {.resource = request.name.Full()});
  }
  SpreadEntry(*entry);  // an engine whose entry is older could not delete
  if (request.name.kind == Name::Kind::kQueue) {
    co_return co_await DeleteEngine(AdoptEngine(queues_, *entry), request.name);
  }
  co_return co_await DeleteEngine(AdoptEngine(topics_, *entry), request.name);
}

// ---- Keeping

// Sees to it that ZooKeeper is heard from, and that a new session has our registration before the engines use it.
Task<void> Broker::KeepSessionAlive() {
  std::int64_t told_session = context_.client.session().session_id;
  while (!is_stopped_) {
    const zk::SessionEvent session = context_.client.session();
    Duration pause = kRetryPause;
    if (session.state == zk::SessionState::kConnected) {
      pause = session.timeout / kHeartbeatsPerTimeout;
      if (registered_session_ != session.session_id) {
        const absl::Status status = co_await Register();
        if (!status.ok()) LogWarning("could not register again", {{"error", status.message()}});
      } else {
        co_await context_.client.Exists(context_.layout.root());
      }
      if (registered_session_ == session.session_id && told_session != session.session_id) {
        told_session = session.session_id;
        TellEngines();
      }
    }
    CloseGone();
    co_await SleepFor(context_.environment, pause);
  }
}

void Broker::TellEngines() {
  absl::MutexLock lock(&mutex_);
  for (auto& [name, engine] : queues_) engine->OnSessionChange();
  for (auto& [name, engine] : topics_) engine->OnSessionChange();
}

Task<void> Broker::SweepTrash() {
  while (!is_stopped_) {
    const absl::StatusOr<bool> is_clean = co_await context_.catalog.Sweep(kSweepRequestsMax);
    co_await SleepFor(context_.environment, is_clean.ok() && !*is_clean ? kRetryPause : kSweepInterval);
  }
}

// ---- Stopping

void Broker::Drain() {
  is_draining_ = true;
  absl::MutexLock lock(&mutex_);
  for (auto& [name, engine] : queues_) asio::post(engine->strand(), [engine = engine] { engine->Drain(); });
  for (auto& [name, engine] : topics_) asio::post(engine->strand(), [engine = engine] { engine->Drain(); });
}

Task<void> Broker::Stop(Duration timeout) {
  Drain();
  is_stopped_ = true;
  std::vector<std::shared_ptr<QueueEngine>> queues;
  std::vector<std::shared_ptr<TopicEngine>> topics;
  {
    absl::MutexLock lock(&mutex_);
    for (auto& [name, engine] : queues_) queues.push_back(engine);
    for (auto& [name, engine] : topics_) topics.push_back(engine);
  }
  // All at once; the last one to finish wakes us.
  const asio::any_io_executor strand = context_.environment.MakeStrand();
  co_await asio::co_spawn(strand, CloseAll(std::move(queues), std::move(topics), strand, timeout), asio::use_awaitable);
}

Task<void> Broker::CloseAll(std::vector<std::shared_ptr<QueueEngine>> queues,
                            std::vector<std::shared_ptr<TopicEngine>> topics, asio::any_io_executor strand,
                            Duration timeout) {
  const auto left = std::make_shared<std::size_t>(queues.size() + topics.size());
  const auto closed = std::make_shared<Signal>(context_.environment, strand);
  auto on_closed = [left, closed, strand](std::exception_ptr) {
    asio::post(strand, [left, closed] {
      --*left;
      closed->Notify();
    });
  };
  for (const auto& engine : queues) asio::co_spawn(engine->strand(), engine->Close(timeout), on_closed);
  for (const auto& engine : topics) asio::co_spawn(engine->strand(), engine->Close(timeout), on_closed);
  const Instant deadline = context_.environment.Now() + timeout;
  while (*left > 0 && context_.environment.Now() < deadline) {
    co_await closed->WaitFor(deadline - context_.environment.Now());
  }
}

}  // namespace postkeeper
