#include "zkstore/simulated_client.h"

#include <algorithm>
#include <asio/post.hpp>

namespace postkeeper::zk {
namespace {

bool IsSequential(CreateMode mode) {
  return mode == CreateMode::kPersistentSequential || mode == CreateMode::kEphemeralSequential;
}

// The response to a request that was not carried out: a multi has a result for each operation, unless nobody knows.
Response Failure(const Request& request, Code code) {
  Response response;
  response.code = code;
  if (IsDefinite(code)) response.results.assign(request.ops.size(), OpResult{.code = code});
  return response;
}

// As the server answers when the operation at `failed` is refused.
Response BadArguments(const Request& request, std::size_t failed) {
  Response response = Failure(request, Code::kRolledBack);
  response.code = Code::kBadArguments;
  for (std::size_t i = failed; i < response.results.size(); ++i) {
    response.results[i].code = i == failed ? Code::kBadArguments : Code::kRuntimeInconsistency;
  }
  return response;
}

std::vector<std::string> PathsOf(const std::map<std::string, std::vector<Watcher>>& table) {
  std::vector<std::string> paths;
  for (const auto& [path, watchers] : table) paths.push_back(path);
  return paths;
}

}  // namespace

SimulatedClient::SimulatedClient(SimulatedEnsemble& ensemble, SimulatedClientOptions options)
    : ensemble_(ensemble),
      environment_(ensemble.environment()),
      options_(std::move(options)),
      executor_(options_.executor ? options_.executor : environment_.executor()),
      connect_timer_(environment_.MakeTimer(executor_)),
      keep_alive_timer_(environment_.MakeTimer(executor_)),
      deadline_timer_(environment_.MakeTimer(executor_)),
      self_(std::make_shared<SimulatedClient*>(this)) {
  connect_timer_->Start(Duration(0), [this] { Connect(); });
}

SimulatedClient::~SimulatedClient() { Close(Duration(0)); }

// ---- what the user calls ----

Response SimulatedClient::CheckBeforeSending(const Request& request) const {
  if (is_closed_) return Failure(request, Code::kClosed);
  if (checks_request_size_ && WireBytes(request) > kRequestBytesMax) return Failure(request, Code::kTooLarge);
  if (request.kind == Request::Kind::kMulti) {
    for (std::size_t i = 0; i < request.ops.size(); ++i) {
      const Op& op = request.ops[i];
      bool is_sequential = op.kind == Op::Kind::kCreate && IsSequential(op.mode);
      if (!IsPathForClient(op.path, is_sequential)) return BadArguments(request, i);
    }
  } else {
    bool is_sequential = request.kind == Request::Kind::kCreate && IsSequential(request.mode);
    if (!IsPathForClient(request.path, is_sequential)) return Failure(request, Code::kBadArguments);
  }
  std::size_t queued = 0;
  for (const auto& [priority, queue] : queued_) queued += queue.size();
  if (session_.state != SessionState::kConnected || queued >= kQueuedRequestsMax) {
    return Failure(request, Code::kNotConnected);
  }
  return {};
}

void SimulatedClient::Submit(Request request, Completion done) {
  Response refusal = CheckBeforeSending(request);
  if (refusal.code != Code::kOk) return Complete(std::move(done), std::move(refusal));
  Outstanding outstanding;
  outstanding.number = ++requests_made_;
  outstanding.bytes = WireBytes(request);
  outstanding.deadline =
      environment_.Now() + std::clamp(request.timeout, Duration(0), Duration(std::chrono::hours(24)));
  outstanding.watcher = std::move(request.watcher);
  request.watcher = nullptr;
  if (outstanding.watcher) watched_path_bytes_ += request.path.size();
  outstanding.done = std::move(done);
  Priority priority = request.priority;
  outstanding.request = std::move(request);
  AddDeadline(outstanding);
  queued_[priority].push_back(std::move(outstanding));
  SendWhatFits();
}

void SimulatedClient::ObserveSession(SessionObserver observer) {
  Notify([this, observer = std::move(observer)] {
    observer(told_session_);
    observers_.push_back(observer);
  });
}

void SimulatedClient::Close(Duration) {
  if (is_closed_) return;
  std::shared_ptr<SimulatedConnection> connection = connection_;
  if (connection && is_reachable_ && connection->to_server->DeliverAllNow() && connection_ == connection) {
    SimulatedConnection& last = *connection;
    ensemble_.Detach(last);
    ensemble_.ReceiveClose(last);
  }
  End();
}

void SimulatedClient::Abandon(OnTheWay on_the_way) {
  if (is_closed_) return;
  if (connection_) BreakConnection(on_the_way);
  End();
}

void SimulatedClient::End() {
  is_closed_ = true;
  connect_timer_->Cancel();
  keep_alive_timer_->Cancel();
  if (connection_) ensemble_.Detach(*connection_);
  connection_.reset();
  SetSession(SessionState::kClosed);
  FailInFlight(Code::kClosed);
  FailQueued(Code::kClosed);
  LoseWatches();
  deadline_timer_->Cancel();
  RunNotifications();
}

// ---- for tests: the network ----

void SimulatedClient::Disconnect(OnTheWay on_the_way) {
  if (connection_) BreakConnection(on_the_way);
}

void SimulatedClient::SetConnectable(bool is_connectable) { is_connectable_ = is_connectable; }

void SimulatedClient::SetReachable(bool is_reachable) {
  is_reachable_ = is_reachable;
  SetStalled();
}

void SimulatedClient::SetReads(bool reads) {
  reads_ = reads;
  SetStalled();
}

void SimulatedClient::SetStalled() {
  if (!connection_) return;
  connection_->to_server->SetStalled(!is_reachable_);
  connection_->to_client->SetStalled(!is_reachable_ || !reads_);
}

void SimulatedClient::SetTrap(Predicate predicate, Fate fate) { traps_.push_back({std::move(predicate), fate}); }

void SimulatedClient::LoseNext(Predicate predicate) { SetTrap(std::move(predicate), Fate::kRequestLost); }

void SimulatedClient::LoseReplyToNext(Predicate predicate) { SetTrap(std::move(predicate), Fate::kReplyLost); }

void SimulatedClient::HoldNext(Predicate predicate) { SetTrap(std::move(predicate), Fate::kHeld); }

SimulatedClient::Fate SimulatedClient::TakeFate(const Request& request) {
  auto trap = std::find_if(traps_.begin(), traps_.end(), [&](const Trap& t) { return t.predicate(request); });
  if (trap == traps_.end()) return Fate::kNormal;
  Fate fate = trap->fate;
  traps_.erase(trap);
  return fate;
}

std::size_t SimulatedClient::ReleaseHeld() {
  std::erase_if(traps_, [](const Trap& trap) { return trap.fate == Fate::kHeld; });
  std::size_t held = 0;
  auto release = [&held](SimulatedPipe& pipe) {
    held += pipe.held();
    pipe.Release();
  };
  if (connection_) release(*connection_->to_server);
  for (auto& old : old_connections_) {
    if (auto connection = old.lock()) release(*connection->to_server);
  }
  old_connections_.clear();
  return held;
}

void SimulatedClient::LoseHeld() {
  for (auto& old : old_connections_) {
    if (auto connection = old.lock()) connection->to_server->LoseEvenHeld();
  }
  old_connections_.clear();
}

// ---- the connection ----

void SimulatedClient::Connect() {
  if (!is_connectable_ || !is_reachable_ || !ensemble_.is_running()) return ConnectLater();
  connection_ = ensemble_.MakeConnection(*this);
  ++connections_made_;
  last_heard_at_ = last_sent_at_ = environment_.Now();
  std::int64_t wanted = session_.state == SessionState::kExpired ? 0 : session_.session_id;
  connection_->to_server->Send(
      [this_connection = connection_.get(), ensemble = &ensemble_, wanted, timeout = options_.session_timeout] {
        ensemble->ReceiveConnect(*this_connection, wanted, timeout);
      });
  ScheduleKeepAlive();
}

void SimulatedClient::ConnectLater() {
  Duration delay = ensemble_.random().Between(options_.reconnect_delay_min, options_.reconnect_delay_max);
  connect_timer_->Start(delay, [this] { Connect(); });
}

void SimulatedClient::OnConnected(std::int64_t session_id, Duration timeout) {
  last_heard_at_ = environment_.Now();
  session_.session_id = session_id;
  session_.timeout = timeout;
  SendWatches();
  SetSession(SessionState::kConnected);
  ScheduleKeepAlive();
}

void SimulatedClient::OnExpired() {
  ensemble_.Detach(*connection_);
  connection_.reset();
  keep_alive_timer_->Cancel();
  seen_zxid_ = 0;
  // SetSession comes last: requests and watches are told before observers.
  session_.state = SessionState::kExpired;
  LoseWatches();
  SetSession(SessionState::kExpired);
  ConnectLater();
}

void SimulatedClient::OnDropped() { BreakConnection(OnTheWay::kLost); }

void SimulatedClient::BreakConnection(OnTheWay on_the_way) {
  std::shared_ptr<SimulatedConnection> connection = std::move(connection_);
  connection_.reset();
  keep_alive_timer_->Cancel();
  if (on_the_way == OnTheWay::kLost) connection->to_server->LoseAll();
  if (on_the_way == OnTheWay::kHeld) connection->to_server->HoldAll();
  ensemble_.Detach(*connection);
  if (!connection->to_server->is_empty()) {
    connection->to_server->SetStalled(false);
    std::erase_if(old_connections_, [](const auto& old) { return old.expired(); });
    old_connections_.push_back(connection);
  }
  if (session_.state == SessionState::kConnected) {
    session_.state = SessionState::kConnecting;
    FailInFlight(Code::kConnectionLoss);
    FailQueued(Code::kNotConnected);
    SetSession(SessionState::kConnecting);
  }
  ConnectLater();
}

void SimulatedClient::SendWatches() {
  if (data_watchers_.empty() && exists_watchers_.empty() && child_watchers_.empty()) return;
  last_sent_at_ = environment_.Now();
  connection_->to_server->Send(
      [connection = connection_.get(), ensemble = &ensemble_, data = PathsOf(data_watchers_),
       exists = PathsOf(exists_watchers_), children = PathsOf(child_watchers_),
       seen = seen_zxid_] { ensemble->ReceiveWatches(*connection, data, exists, children, seen); });
}

void SimulatedClient::ScheduleKeepAlive() {
  Duration timeout = SessionTimeout();
  Instant due = last_heard_at_ + timeout * 2 / 3;
  if (session_.state == SessionState::kConnected) due = std::min(due, last_sent_at_ + timeout / 3);
  keep_alive_timer_->Start(due - environment_.Now(), [this] { KeepAlive(); });
}

Duration SimulatedClient::SessionTimeout() const {
  return session_.timeout > Duration(0) ? session_.timeout : options_.session_timeout;
}

void SimulatedClient::KeepAlive() {
  if (environment_.Now() >= last_heard_at_ + SessionTimeout() * 2 / 3) return BreakConnection(OnTheWay::kLost);
  if (session_.state == SessionState::kConnected && environment_.Now() >= last_sent_at_ + SessionTimeout() / 3) {
    last_sent_at_ = environment_.Now();
    connection_->to_server->Send(
        [connection = connection_.get(), ensemble = &ensemble_] { ensemble->ReceivePing(*connection); });
  }
  ScheduleKeepAlive();
}

// ---- requests ----

void SimulatedClient::SendWhatFits() {
  for (auto& [priority, queue] : queued_) {
    while (!queue.empty()) {
      if (in_flight_.size() >= kInFlightRequestsMax || in_flight_bytes_ + queue.front().bytes > kInFlightBytesMax)
        return;
      Outstanding next = std::move(queue.front());
      queue.pop_front();
      Send(std::move(next));
    }
  }
}

void SimulatedClient::Send(Outstanding outstanding) {
  Fate fate = TakeFate(outstanding.request);
  outstanding.sent_at = last_sent_at_ = environment_.Now();
  ++requests_sent_;
  Request sent = std::move(outstanding.request);
  outstanding.request = {};
  outstanding.request.kind = sent.kind;
  outstanding.request.path = sent.path;
  in_flight_bytes_ += outstanding.bytes;
  connection_->to_server->Send(
      [connection = connection_.get(), ensemble = &ensemble_, sent = std::move(sent), fate,
       wants_watch = static_cast<bool>(outstanding.watcher), number = outstanding.number] {
        if (fate != Fate::kRequestLost) ensemble->ReceiveRequest(*connection, sent, wants_watch, number);
        bool breaks = fate == Fate::kRequestLost || fate == Fate::kReplyLost;
        if (breaks && connection->client != nullptr) connection->client->BreakConnection(OnTheWay::kLost);
      },
      fate == Fate::kHeld);
  in_flight_.push_back(std::move(outstanding));
}

void SimulatedClient::OnReply(std::int64_t number, Response response) {
  last_heard_at_ = environment_.Now();
  seen_zxid_ = std::max(seen_zxid_, response.zxid);
  Outstanding answered = std::move(in_flight_.front());
  if (answered.number != number) {
    std::fprintf(stderr, "SimulatedClient: reply %lld in place of %lld\n", static_cast<long long>(number),
                 static_cast<long long>(answered.number));
    std::abort();
  }
  in_flight_.pop_front();
  in_flight_bytes_ -= answered.bytes;
  deadlines_.erase({answered.deadline, answered.number});
  if (IsDefinite(response.code)) last_answered_sent_at_ = std::max(last_answered_sent_at_, answered.sent_at);
  KeepWatcher(answered, response.code);
  if (answered.done) Complete(std::move(answered.done), std::move(response));
  SendWhatFits();
}

void SimulatedClient::OnPong(std::int64_t zxid) {
  last_heard_at_ = environment_.Now();
  seen_zxid_ = std::max(seen_zxid_, zxid);
}

// ---- watches ----

void SimulatedClient::KeepWatcher(Outstanding& outstanding, Code code) {
  if (!outstanding.watcher) return;
  Request::Kind kind = outstanding.request.kind;
  bool is_on_nothing = kind == Request::Kind::kExists && code == Code::kNoNode;
  if (code != Code::kOk && !is_on_nothing) {
    watched_path_bytes_ -= outstanding.request.path.size();
    return;
  }
  WatcherTable& table = is_on_nothing                      ? exists_watchers_
                        : kind == Request::Kind::kChildren ? child_watchers_
                                                           : data_watchers_;
  // Of a request that has timed out nobody wants to know any more, but the server tells all the same.
  if (!outstanding.done) outstanding.watcher = [](WatchEvent) {};
  table[outstanding.request.path].push_back(std::move(outstanding.watcher));
}

void SimulatedClient::OnEvent(WatchEvent event) {
  last_heard_at_ = environment_.Now();
  std::vector<Watcher> fired;
  auto take = [&](WatcherTable& table) {
    auto found = table.find(event.path);
    if (found == table.end()) return;
    for (Watcher& watcher : found->second) fired.push_back(std::move(watcher));
    table.erase(found);
  };
  if (event.type != WatchType::kChildren) take(data_watchers_);
  if (event.type != WatchType::kChildren) take(exists_watchers_);
  if (event.type == WatchType::kChildren || event.type == WatchType::kDeleted) take(child_watchers_);
  for (Watcher& watcher : fired) {
    watched_path_bytes_ -= event.path.size();
    Notify([watcher = std::move(watcher), event]() mutable { watcher(std::move(event)); });
  }
}

void SimulatedClient::LoseWatches() {
  for (WatcherTable* table : {&data_watchers_, &exists_watchers_, &child_watchers_}) {
    for (auto& [path, watchers] : *table) {
      for (Watcher& watcher : watchers) {
        watched_path_bytes_ -= path.size();
        WatchEvent lost{WatchType::kLost, path};
        Notify([watcher = std::move(watcher), lost]() mutable { watcher(std::move(lost)); });
      }
    }
    table->clear();
  }
}

// ---- outcomes ----

void SimulatedClient::FailInFlight(Code code) {
  std::deque<Outstanding> failed = std::move(in_flight_);
  in_flight_.clear();
  in_flight_bytes_ = 0;
  for (Outstanding& outstanding : failed) {
    if (outstanding.watcher) watched_path_bytes_ -= outstanding.request.path.size();
    deadlines_.erase({outstanding.deadline, outstanding.number});
    if (outstanding.done) Complete(std::move(outstanding.done), Failure({}, code));
  }
}

void SimulatedClient::FailQueued(Code code) {
  for (auto& [priority, queue] : queued_) {
    for (Outstanding& outstanding : queue) {
      if (outstanding.watcher) watched_path_bytes_ -= outstanding.request.path.size();
      deadlines_.erase({outstanding.deadline, outstanding.number});
      Complete(std::move(outstanding.done), Failure(outstanding.request, code));
    }
    queue.clear();
  }
}

void SimulatedClient::AddDeadline(const Outstanding& outstanding) {
  deadlines_.emplace(outstanding.deadline, outstanding.number);
  if (outstanding.deadline < deadline_alarm_) ScheduleDeadlines();
}

void SimulatedClient::ScheduleDeadlines() {
  deadline_alarm_ = deadlines_.empty() ? Instant::max() : deadlines_.begin()->first;
  if (deadlines_.empty()) return deadline_timer_->Cancel();
  deadline_timer_->Start(deadline_alarm_ - environment_.Now(), [this] { OnDeadlines(); });
}

void SimulatedClient::OnDeadlines() {
  while (!deadlines_.empty() && deadlines_.begin()->first <= environment_.Now()) {
    std::int64_t number = deadlines_.begin()->second;
    deadlines_.erase(deadlines_.begin());
    TimeOut(number);
  }
  ScheduleDeadlines();
}

void SimulatedClient::TimeOut(std::int64_t number) {
  auto is_it = [number](const Outstanding& outstanding) { return outstanding.number == number; };
  auto sent = std::find_if(in_flight_.begin(), in_flight_.end(), is_it);
  if (sent != in_flight_.end()) return Complete(std::exchange(sent->done, nullptr), Failure({}, Code::kTimeout));
  for (auto& [priority, queue] : queued_) {
    auto queued = std::find_if(queue.begin(), queue.end(), is_it);
    if (queued == queue.end()) continue;
    if (queued->watcher) watched_path_bytes_ -= queued->request.path.size();
    Complete(std::move(queued->done), Failure({}, Code::kTimeout));
    queue.erase(queued);
    return;
  }
}

void SimulatedClient::SetSession(SessionState state) {
  session_.state = state;
  Notify([this, event = session_] {
    told_session_ = event;
    for (std::size_t i = 0; i < observers_.size(); ++i) observers_[i](event);
  });
}

void SimulatedClient::Complete(Completion done, Response response) {
  Notify([done = std::move(done), response = std::move(response)]() mutable { done(std::move(response)); });
}

void SimulatedClient::Notify(absl::AnyInvocable<void()> function) {
  notifications_.push_back(std::move(function));
  if (notifications_.size() > 1) return;  // the run that is on its way takes it along
  asio::post(executor_, [weak = std::weak_ptr(self_)] {
    if (auto self = weak.lock()) (*self)->RunNotifications();
  });
}

void SimulatedClient::RunNotifications() {
  while (!notifications_.empty()) {
    absl::AnyInvocable<void()> function = std::move(notifications_.front());
    notifications_.pop_front();
    function();
  }
}

}  // namespace postkeeper::zk
