#include "zkstore/membership.h"

#include <algorithm>
#include <asio/post.hpp>
#include <utility>

#include "postkeeper/storage/v1/records.pb.h"
#include "zkstore/errors.h"
#include "zkstore/owner.h"

namespace postkeeper {
namespace {

// After a look that failed, and while there is no connection.
constexpr Duration kRetryPause = std::chrono::milliseconds(200);

std::string Encode(const ReplicaInfo& replica) {
  storage::v1::ReplicaRecord record;
  record.set_address(replica.address);
  record.set_version(replica.version);
  record.set_start_time_ms(replica.start_time.time_since_epoch().count());
  return record.SerializeAsString();
}

// What cannot be read leaves the details empty: the process is registered all the same.
ReplicaInfo Decode(const ProcessId& process, const std::string& data) {
  ReplicaInfo replica;
  replica.process = process;
  storage::v1::ReplicaRecord record;
  if (!record.ParseFromString(data)) return replica;
  replica.address = record.address();
  replica.version = record.version();
  replica.start_time = WallTime(std::chrono::milliseconds(record.start_time_ms()));
  return replica;
}

}  // namespace

Membership::Membership(Environment& environment, zk::Client& client, const Layout& layout, ReplicaInfo self,
                       Listener listener)
    : environment_(environment),
      client_(client),
      layout_(layout),
      self_(std::move(self)),
      record_(Encode(self_)),
      strand_(environment.MakeStrand()),
      listener_(std::move(listener)),
      wake_(environment, strand_) {}

Task<absl::Status> Membership::Join(std::optional<ProcessId> dead_predecessor) {
  Task<absl::Status> joining = JoinOnStrand(shared_from_this(), dead_predecessor);
  co_return co_await asio::co_spawn(strand_, std::move(joining), asio::use_awaitable);
}

Task<absl::Status> Membership::JoinOnStrand(std::shared_ptr<Membership> self,
                                            std::optional<ProcessId> dead_predecessor) {
  (void)self;  // keeps this alive
  if (dead_predecessor) {
    const zk::Response gone = co_await client_.Delete(layout_.Replica(*dead_predecessor), zk::kAnyVersion);
    if (gone.code != zk::Code::kOk && gone.code != zk::Code::kNoNode) {
      co_return UnavailableError(gone, "remove the registration of the process that ran here before");
    }
  }
  co_return co_await LookOnce();
}

void Membership::Start() {
  client_.ObserveSession([weak = weak_from_this(), strand = strand_](const zk::SessionEvent&) {
    asio::post(strand, [weak] {
      if (const std::shared_ptr<Membership> membership = weak.lock()) membership->wake_.Notify();
    });
  });
  Spawn(strand_, Run(shared_from_this()));
}

Task<void> Membership::Stop() {
  Task<void> stopping = StopOnStrand(shared_from_this());
  co_await asio::co_spawn(strand_, std::move(stopping), asio::use_awaitable);
}

Task<void> Membership::StopOnStrand(std::shared_ptr<Membership> self) {
  (void)self;  // keeps this alive
  is_stopped_ = true;
  listener_ = Listener();
  wake_.Notify();
  co_return;
}

Task<void> Membership::Run(std::shared_ptr<Membership> self) {
  (void)self;  // keeps this alive
  while (!is_stopped_) {
    const Instant begun = environment_.Now();
    const bool was_connected = client_.session().state == zk::SessionState::kConnected;
    const absl::Status looked = co_await LookOnce();
    const zk::SessionEvent session = client_.session();
    const bool is_trouble = !looked.ok() && was_connected && session.state == zk::SessionState::kConnected;
    if (is_trouble && listener_.on_trouble) listener_.on_trouble(looked);
    const Duration timeout = session.timeout;
    co_await wake_.WaitFor(looked.ok() ? std::max(timeout / kLooksPerTimeout, kLookPauseMin) : kRetryPause);
    const Duration since = environment_.Now() - begun;
    if (since < kLookPauseMin) co_await SleepFor(environment_, kLookPauseMin - since);
  }
}

Task<absl::Status> Membership::LookOnce() {
  const zk::SessionEvent session = client_.session();
  if (session.state != zk::SessionState::kConnected) {
    co_return MakeError(Reason::kZookeeperUnavailable, "there is no connection to ZooKeeper");
  }
  if (registered_session_ != session.session_id) {
    const absl::Status registered = co_await Register(session.session_id);
    if (!registered.ok()) co_return registered;
    registered_session_ = session.session_id;
    if (listener_.on_registered) listener_.on_registered();
  }

  const Instant sent_at = environment_.Now();
  const std::uint64_t watch = is_watching() ? 0 : ++watches_made_;
  zk::Watcher watcher;
  if (watch != 0) watcher = MakeWatcher(watch);
  const zk::Response list = co_await client_.Children(layout_.Replicas(), std::move(watcher));
  if (list.code != zk::Code::kOk) co_return UnavailableError(list, "list the replicas");
  if (watch != 0) watch_set_ = watch;

  std::vector<ProcessId> listed;  // in order, as the names are
  for (const std::string& name : list.children) {
    const std::optional<ProcessId> process = ProcessId::FromHex(name);
    if (process) listed.push_back(*process);
  }
  if (!std::binary_search(listed.begin(), listed.end(), self_.process)) {
    registered_session_ = 0;  // to be made again
    wake_.Notify();
  }
  const bool is_complete = listed.size() <= kReplicasMax;
  if (!is_complete) {
    listed.resize(kReplicasMax);
    const absl::MutexLock lock(&mutex_);
    is_complete_ = false;  // before anybody is taken off who is registered
  }
  Remove(listed);
  const absl::Status added = co_await Add(listed);
  if (!added.ok()) co_return added;
  const absl::MutexLock lock(&mutex_);
  as_of_ = sent_at;
  is_complete_ = is_complete;
  co_return absl::OkStatus();
}

// Makes the one ephemeral of this process, under the present session.
Task<absl::Status> Membership::Register(std::int64_t session_id) {
  const std::string path = layout_.Replica(self_.process);
  zk::Response made = co_await client_.Create(path, record_, zk::CreateMode::kEphemeral);
  if (made.code == zk::Code::kNodeExists) {
    const zk::Response existing = co_await client_.Exists(path);
    made.code = existing.code;
    // Of this session: a reply was lost. Of another: that one is over, and this server has not heard of it yet.
    if (existing.code == zk::Code::kOk && existing.stat.ephemeral_owner != session_id) {
      // In one, so that a late copy of this request cannot leave us without a registration.
      std::vector<zk::Op> ops;
      ops.push_back(zk::Op::Delete(path));
      ops.push_back(zk::Op::Create(path, record_, zk::CreateMode::kEphemeral));
      made = co_await client_.Multi(std::move(ops), zk::Priority::kSettle);
    }
  }
  if (made.code != zk::Code::kOk) co_return UnavailableError(made, "register this replica");
  co_return absl::OkStatus();
}

zk::Watcher Membership::MakeWatcher(std::uint64_t number) {
  return [weak = weak_from_this(), strand = strand_, number](const zk::WatchEvent&) {
    asio::post(strand, [weak, number] {
      const std::shared_ptr<Membership> membership = weak.lock();
      if (!membership) return;
      membership->watch_fired_ = std::max(membership->watch_fired_, number);
      membership->wake_.Notify();
    });
  };
}

void Membership::Remove(const std::vector<ProcessId>& listed) {
  std::vector<ReplicaInfo> gone;
  {
    const absl::MutexLock lock(&mutex_);
    for (auto at = replicas_.begin(); at != replicas_.end();) {
      const auto here = at++;
      if (std::binary_search(listed.begin(), listed.end(), here->first)) continue;
      gone.push_back(std::move(here->second));
      replicas_.erase(here);
    }
  }
  for (const ReplicaInfo& replica : gone) {
    if (listener_.on_leave) listener_.on_leave(replica);
  }
}

Task<absl::Status> Membership::Add(const std::vector<ProcessId>& listed) {
  std::vector<ProcessId> unknown;
  {
    const absl::MutexLock lock(&mutex_);
    for (const ProcessId& process : listed) {
      if (!replicas_.contains(process)) unknown.push_back(process);
    }
  }
  for (const ProcessId& process : unknown) {
    const zk::Response read = co_await client_.Get(layout_.Replica(process));
    if (read.code == zk::Code::kNoNode) continue;  // has left since; the watch tells
    if (read.code != zk::Code::kOk) co_return UnavailableError(read, "describe a replica");
    const ReplicaInfo replica = Decode(process, read.data);
    {
      const absl::MutexLock lock(&mutex_);
      replicas_.emplace(process, replica);
    }
    if (listener_.on_join) listener_.on_join(replica);
  }
  co_return absl::OkStatus();
}

std::optional<Membership::View> Membership::view() const {
  const Instant now = environment_.Now();
  const absl::MutexLock lock(&mutex_);
  if (!as_of_) return std::nullopt;
  View view{.replicas = {}, .age = now - *as_of_, .is_complete = is_complete_};
  view.replicas.reserve(replicas_.size());
  for (const auto& [process, replica] : replicas_) view.replicas.push_back(replica);
  return view;
}

std::size_t Membership::size() const {
  const absl::MutexLock lock(&mutex_);
  return replicas_.size();
}

std::optional<Membership::Standing> Membership::Find(const ProcessId& process) const {
  const Instant now = environment_.Now();
  const absl::MutexLock lock(&mutex_);
  const bool is_registered = replicas_.contains(process);
  if (!as_of_ || (!is_registered && !is_complete_)) return std::nullopt;
  return Standing{.is_registered = is_registered, .age = now - *as_of_};
}

}  // namespace postkeeper
