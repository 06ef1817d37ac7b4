#include "service/log_ownership.h"

#include <algorithm>
#include <asio/post.hpp>
#include <utility>

#include "zkstore/errors.h"
#include "zkstore/log_reader.h"
#include "zkstore/mutation.h"

namespace postkeeper {
namespace {

// Between attempts to take a log.
constexpr Duration kRetryPause = std::chrono::milliseconds(100);
// While another replica has it and the record is watched; the watch tells sooner, and so does who leaves.
constexpr Duration kPauseWhileWatching = std::chrono::seconds(30);
constexpr Duration kPauseUnwatched = std::chrono::seconds(1);
// How long calls wait for a ZooKeeper that is not connected.
constexpr Duration kPatience = std::chrono::milliseconds(1500);

}  // namespace

LogOwnership::LogOwnership(EngineContext& context, const Uid& log, asio::any_io_executor strand, Listener listener)
    : context_(context),
      log_(log),
      strand_(strand),
      number_(++context.last_ownership),
      listener_(std::move(listener)),
      why_not_(MakeError(Reason::kZookeeperUnavailable, "this replica has just started")),
      wake_(context.environment, strand),
      changed_(context.environment, strand) {}

void LogOwnership::Start() { Spawn(strand_, Run(shared_from_this())); }

void LogOwnership::OnSessionChange() {
  asio::post(strand_, [self = shared_from_this()] {
    self->has_new_session_ = true;
    self->wake_.Notify();
  });
}

void LogOwnership::Look() {
  asio::post(strand_, [self = shared_from_this()] { self->wake_.Notify(); });
}

Task<void> LogOwnership::Run(std::shared_ptr<LogOwnership> self) {
  (void)self;  // keeps this alive
  while (!is_stopped_ && !is_gone_) {
    if (is_handing_over_) {
      co_await wake_.Wait();
      continue;
    }
    if (!is_held_) {
      why_not_ = co_await Take();
      if (is_stopped_ || is_gone_) break;
      if (!is_held_) {
        const bool is_elsewhere = HasReason(why_not_, Reason::kNoOwner);
        if (is_elsewhere) co_await LookWhoOwnsIt();
        if (is_stopped_) break;
        co_await wake_.WaitFor(is_elsewhere ? PauseBeforeNextLook() : kRetryPause);
      }
      continue;
    }
    if (!has_new_session_) {
      co_await wake_.Wait();
      continue;
    }
    const zk::SessionEvent session = context_.client.session();
    if (session.session_id == session_id_) {
      has_new_session_ = false;
      continue;
    }
    // Its connection may break before the log is taken; nobody tells when it is back.
    if (session.state == zk::SessionState::kConnected) co_await Retake();
    if (is_held_ && session_id_ != session.session_id) co_await wake_.WaitFor(kRetryPause);
  }
  Release();
  changed_.Notify();
}

Task<absl::Status> LogOwnership::Take() {
  const zk::SessionEvent session = context_.client.session();
  if (session.state != zk::SessionState::kConnected) {
    co_return MakeError(Reason::kZookeeperUnavailable, "there is no connection to ZooKeeper");
  }
  const std::optional<Instant> was_free_since = std::exchange(free_since_, std::nullopt);
  TakeOptions options;
  options.may_take = [this, was_free_since](const OwnerView& free) {
    free_since_ = was_free_since.value_or(context_.environment.Now());
    return MayTake(free);
  };
  options.taker = number_;
  options.served_reign = served_reign_;
  absl::StatusOr<OwnerView> taken = co_await TakeOwnership(context_.client, context_.layout, log_, context_.process,
                                                           context_.address, std::move(options));
  if (absl::IsNotFound(taken.status())) {
    SetGone();
    co_return taken.status();
  }
  if (!taken.ok()) co_return taken.status();
  if (is_stopped_) co_return absl::OkStatus();
  const Instant taken_at = context_.environment.Now();
  const std::optional<Instant> ownerless_since = std::exchange(free_since_, std::nullopt);
  held_ = *taken;
  session_id_ = session.session_id;
  absl::Status loaded = co_await listener_.on_taken(held_);
  if (!loaded.ok() || is_stopped_ || is_gone_) co_return loaded;
  is_held_ = true;
  owner_elsewhere_.reset();
  changed_.Notify();
  CountTaken(taken_at, ownerless_since);
  co_return absl::OkStatus();
}

void LogOwnership::CountTaken(Instant taken_at, std::optional<Instant> ownerless_since) {
  const Instant now = context_.environment.Now();
  const bool had_owner = held_.epoch > 1;
  std::optional<Duration> ownerless;
  if (had_owner && ownerless_since) ownerless = now - *ownerless_since;
  context_.metrics.ownership().Taken(now - taken_at, ownerless);
}

// Also when it is long free: whoever should take it does not.
bool LogOwnership::MayTake(const OwnerView& free) {
  const bool was_never_owned = free.epoch == 0;
  if (was_never_owned || !context_.is_first_choice || context_.is_first_choice(log_, free)) return true;
  return context_.environment.Now() - *free_since_ >= kFreeForAnyone;
}

Duration LogOwnership::PauseBeforeNextLook() const {
  if (!free_since_) return is_watching_ ? kPauseWhileWatching : kPauseUnwatched;
  const Duration left = *free_since_ + kFreeForAnyone - context_.environment.Now();
  return std::clamp<Duration>(left, kRetryPause, kFreeForAnyone);
}

// A watch on the record wakes this object when the owner lets go.
Task<void> LogOwnership::LookWhoOwnsIt() {
  zk::Watcher watcher;
  const std::size_t path_bytes = context_.layout.Owner(log_).size();
  if (!is_watching_ && context_.client.watched_path_bytes() + path_bytes <= LogReader::kWatchedPathBytesMax) {
    is_watching_ = true;
    watcher = [weak = weak_from_this()](const zk::WatchEvent&) {
      const std::shared_ptr<LogOwnership> self = weak.lock();
      if (!self) return;
      asio::post(self->strand_, [self] {
        self->is_watching_ = false;
        self->wake_.Notify();
      });
    };
  }
  const bool sets_watch = static_cast<bool>(watcher);
  const absl::StatusOr<OwnerView> owner =
      co_await ReadOwner(context_.client, context_.layout, log_, std::move(watcher));
  if (sets_watch && !owner.ok()) is_watching_ = false;
  if (is_stopped_) co_return;
  // An owner at our address is what ran here before: it is dead, and its registration will go.
  const bool is_alive_elsewhere = !free_since_ && owner.ok() && owner->state == OwnerView::State::kProcess &&
                                  owner->process != context_.process && owner->address != context_.address;
  if (!is_alive_elsewhere) {
    owner_elsewhere_.reset();
    co_return;
  }
  owner_elsewhere_ = owner->address;
  changed_.Notify();
  if (listener_.on_owned_elsewhere) listener_.on_owned_elsewhere(*owner_elsewhere_);
}

Task<std::optional<std::string>> LogOwnership::FindOwner(Duration timeout) {
  const std::shared_ptr<LogOwnership> self = shared_from_this();
  const Instant deadline = context_.environment.Now() + timeout;
  while (!is_held_ && !is_gone_ && !is_stopped_ && !owner_elsewhere_) {
    const Instant now = context_.environment.Now();
    const bool is_connected = context_.client.session().state == zk::SessionState::kConnected;
    if (now >= deadline || !is_connected) break;
    co_await changed_.WaitFor(std::min<Duration>(deadline - now, kRetryPause));
  }
  if (is_held_ || is_gone_) co_return std::nullopt;
  co_return owner_elsewhere_;
}

void LogOwnership::BeginHandOver() {
  is_held_ = false;
  is_handing_over_ = true;
  why_not_ = MakeError(Reason::kNoOwner, "the log is on its way to another replica");
}

void LogOwnership::EndHandOver() {
  is_handing_over_ = false;
  wake_.Notify();
}

// Under a new session.
Task<void> LogOwnership::Retake() {
  const std::int64_t session_id = context_.client.session().session_id;
  const absl::StatusOr<OwnerView> owner = co_await ReadOwner(context_.client, context_.layout, log_);
  if (is_stopped_ || !is_held_) co_return;
  const bool is_known = owner.ok() || absl::IsNotFound(owner.status());
  if (!is_known) co_return;
  // Only this object writes this process into the record, so nobody had the log since we took it.
  const bool is_careless = IsMutated(Mutation::kForgetToRetake);
  if (is_careless) {
    // Taken again below, whoever had it.
  } else if (!owner.ok() || owner->state != OwnerView::State::kProcess || owner->process != context_.process) {
    Lose(MakeError(Reason::kNoOwner, "another replica has taken it"));
    co_return;
  }
  TakeOptions options;
  options.taker = number_;
  options.keeps_reign = true;
  const absl::StatusOr<OwnerView> taken = co_await TakeOwnership(
      context_.client, context_.layout, log_, context_.process, context_.address, std::move(options));
  if (is_stopped_ || !is_held_) co_return;
  if (!taken.ok()) {
    if (HasReason(taken.status(), Reason::kNoOwner) || absl::IsNotFound(taken.status())) Lose(taken.status());
    co_return;
  }
  if (!is_careless && taken->epoch != owner->epoch + 1) {
    Lose(MakeError(Reason::kNoOwner, "another replica had it for a while"));
    co_return;
  }
  held_ = *taken;
  session_id_ = session_id;
  listener_.on_retaken(held_);
  context_.metrics.ownership().Retaken();
}

void LogOwnership::Lose(absl::Status why) {
  if (!is_held_ || is_stopped_) return;
  is_held_ = false;
  why_not_ = why;
  listener_.on_lost(std::move(why));
  context_.metrics.ownership().Lost();
  wake_.Notify();
}

void LogOwnership::SetGone() {
  if (is_gone_) return;
  Lose(MakeError(Reason::kNoOwner, "the log was deleted"));
  is_gone_ = true;
  if (!is_stopped_ && listener_.on_gone) listener_.on_gone();
  wake_.Notify();
  changed_.Notify();
}

Task<absl::Status> LogOwnership::Confirm() {
  const std::shared_ptr<LogOwnership> self = shared_from_this();
  const std::int64_t epoch = held_.epoch;
  const absl::StatusOr<OwnerView> owner = co_await ReadOwner(context_.client, context_.layout, log_);
  if (!owner.ok()) co_return owner.status();
  // Under a new session it is taken again by this process; that is no change.
  const bool is_ours = owner->state == OwnerView::State::kProcess && owner->process == context_.process;
  const bool is_unchanged = is_ours || owner->version <= held_.version;
  if (is_held_ && held_.epoch >= epoch && is_unchanged) co_return absl::OkStatus();
  absl::Status lost = MakeError(Reason::kNoOwner, "another replica has taken the log");
  if (held_.epoch == epoch) Lose(lost);
  co_return lost;
}

void LogOwnership::Doubt() {
  if (is_in_doubt_ || !is_held_) return;
  is_in_doubt_ = true;
  auto confirm = [](std::shared_ptr<LogOwnership> self) -> Task<void> {
    (void)co_await self->Confirm();
    self->is_in_doubt_ = false;
  };
  Spawn(strand_, confirm(shared_from_this()));
}

void LogOwnership::Stop() {
  is_stopped_ = true;
  is_held_ = false;
  wake_.Notify();
  changed_.Notify();
}

// The listener holds its engine, which holds this.
void LogOwnership::Release() { listener_ = Listener(); }

Task<absl::Status> LogOwnership::WaitUntilHeld(Duration timeout) {
  const std::shared_ptr<LogOwnership> self = shared_from_this();
  const Instant started = context_.environment.Now();
  Instant connected = started;
  while (!is_held_) {
    const Instant now = context_.environment.Now();
    if (is_gone_) co_return absl::NotFoundError("deleted");
    if (is_stopped_) co_return MakeError(Reason::kReplicaDraining, "this replica is shutting down");
    if (owner_elsewhere_) co_return why_not_;
    if (context_.client.session().state == zk::SessionState::kConnected) connected = now;
    if (now - connected >= kPatience) {
      co_return MakeError(Reason::kZookeeperUnavailable, "there is no connection to ZooKeeper");
    }
    if (now - started >= timeout) co_return why_not_;
    co_await changed_.WaitFor(std::min<Duration>(kRetryPause, timeout - (now - started)));
  }
  co_return absl::OkStatus();
}

}  // namespace postkeeper
