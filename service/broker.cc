#include "service/broker.h"

#include <algorithm>
#include <asio/post.hpp>

#include "service/balancer.h"
#include "service/logging.h"
#include "zkstore/errors.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

constexpr Duration kRetryPause = std::chrono::milliseconds(200);
constexpr Duration kSweepInterval = std::chrono::seconds(30);
// Requests of one sweep, so that it never gets in the way of the work.
constexpr int kSweepRequestsMax = 2000;

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

Broker::Broker(EngineContext& context, Options options)
    : context_(context),
      options_(std::move(options)),
      membership_(std::make_shared<Membership>(context.environment, context.client, context.layout,
                                               ReplicaInfo{.process = context.process,
                                                           .address = context.address,
                                                           .version = options_.version,
                                                           .start_time = context.environment.WallNow()},
                                               MembershipListener())),
      census_(std::make_shared<OwnerCensus>(context.environment, context.client, context.layout)),
      balancer_(std::make_shared<Balancer>(
          context.environment, [this] { return Logs(); }, context.process, options_.balance_after)),
      strand_(context.environment.MakeStrand()),
      discover_(context.environment, strand_) {
  context_.is_first_choice = [balancer = balancer_](const Uid& log, const OwnerView& free) {
    return balancer->IsFirstChoice(log, free);
  };
}

Broker::~Broker() = default;

// ---- Starting

Task<absl::Status> Broker::Start() {
  std::string last_error;
  while (!is_draining_) {
    const absl::Status status = co_await StartOnce();
    if (status.ok()) {
      is_started_ = true;
      membership_->Start();
      context_.metrics.SetClusterGauges([membership = membership_, unreachable = options_.unreachable_replicas] {
        return ClusterGauges{.replicas = static_cast<std::int64_t>(membership->size()),
                             .unreachable_replicas = unreachable ? unreachable() : 0};
      });
      context_.metrics.SetReplicaGauges([this] { return Gauges(); });
      balancer_->Start();
      Spawn(strand_, DiscoverLogs());
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
  // Before any engine takes a log: who sees our name in an owner record must see our registration too.
  if (absl::Status status = co_await membership_->Join(options_.dead_predecessor); !status.ok()) co_return status;
  co_return co_await OpenNew();
}

bool Broker::IsOpen(const LogName& name) const {
  absl::MutexLock lock(&mutex_);
  return name.kind == LogKind::kQueue ? queues_.contains(name) : topics_.contains(name);
}

// What is in the catalog and has no engine here.
Task<absl::Status> Broker::OpenNew() {
  absl::StatusOr<std::vector<LogName>> names = co_await context_.catalog.ListAll();
  if (!names.ok()) co_return names.status();
  for (const LogName& name : *names) {
    if (IsOpen(name) || is_draining_) continue;
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
std::shared_ptr<Engine> Broker::AdoptEngine(absl::btree_map<LogName, std::shared_ptr<Engine>>& engines,
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

Membership::Listener Broker::MembershipListener() {
  const auto log = [own = context_.process](std::string_view event, const ReplicaInfo& replica) {
    if (replica.process == own) return;
    LogInfo(
        event,
        {{"replica", EncodeProcessId(replica.process)}, {"address", replica.address}, {"version", replica.version}});
  };
  return {.on_registered = [this] { TellEngines(); },
          .on_join =
              [this, log](const ReplicaInfo& replica) {
                log("a replica is there", replica);
                balancer_->OnJoin(replica.process);
              },
          .on_leave =
              [this, log](const ReplicaInfo& replica) {
                log("a replica has gone", replica);
                balancer_->OnLeave(replica.process);
                LookForFreeLogs();
              },
          .on_trouble =
              [](const absl::Status& why) {
                LogWarning("could not look after the registration", {{"error", why.message()}});
              }};
}

// A replica that has gone owns nothing any more.
void Broker::LookForFreeLogs() {
  absl::MutexLock lock(&mutex_);
  for (auto& [name, engine] : queues_) engine->LookForOwner();
  for (auto& [name, engine] : topics_) engine->LookForOwner();
  asio::post(strand_, [this] { discover_.Notify(); });  // it may have created some
}

std::vector<LogHandle> Broker::Logs() const {
  std::vector<LogHandle> logs;
  absl::MutexLock lock(&mutex_);
  logs.reserve(queues_.size() + topics_.size());
  for (const auto& [name, engine] : queues_) logs.emplace_back(engine);
  for (const auto& [name, engine] : topics_) logs.emplace_back(engine);
  return logs;
}

// Holds no engine, which would have to be destroyed by the scraper's thread.
ReplicaGauges Broker::Gauges() const {
  ReplicaGauges gauges;
  gauges.stored_bytes = context_.stored_bytes;
  gauges.corruptions = context_.corruptions;
  const auto count = [&gauges](const auto& engines, std::int64_t& known, std::int64_t& owned) {
    known = static_cast<std::int64_t>(engines.size());
    for (const auto& [name, engine] : engines) {
      if (engine->is_serving()) ++owned;
      if (engine->is_polling()) ++gauges.polling_logs;
    }
  };
  absl::MutexLock lock(&mutex_);
  count(queues_, gauges.queues, gauges.queues_owned);
  count(topics_, gauges.topics, gauges.topics_owned);
  return gauges;
}

Task<void> Broker::DiscoverLogs() {
  while (!is_stopped_) {
    co_await discover_.WaitFor(kDiscoverInterval);
    if (!is_ready()) continue;
    const absl::Status opened = co_await OpenNew();
    if (!opened.ok()) LogWarning("could not look for new queues and topics", {{"error", opened.message()}});
  }
}

// The engines use a new session only when it has our registration.
void Broker::TellEngines() {
  absl::MutexLock lock(&mutex_);
  for (auto& [name, engine] : queues_) engine->OnSessionChange();
  for (auto& [name, engine] : topics_) engine->OnSessionChange();
}

Task<void> Broker::SweepTrash() {
  while (!is_stopped_) {
    CloseGone();
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
  context_.metrics.SetClusterGauges({});
  context_.metrics.SetReplicaGauges({});
  balancer_->Stop();
  co_await membership_->Stop();
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
