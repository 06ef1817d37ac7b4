#include "zkstore/c_client.h"

#include <pthread.h>
#include <zookeeper/zookeeper.h>

#include <algorithm>
#include <condition_variable>
#include <list>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "zkstore/c_client_call.h"
#include "zkstore/c_client_log.h"
#include "zkstore/text.h"

namespace postkeeper::zk {
namespace {

constexpr int kPriorities = 3;
constexpr Duration kTimeoutMax = std::chrono::hours(24);       // keeps deadlines far from the clock's overflow
constexpr Duration kTimerSleepMax = std::chrono::seconds(1);   // after a resume, deadlines are seen within this time
constexpr Duration kOpenRetryDelay = std::chrono::seconds(1);  // when no server's name can be resolved
constexpr Duration kCloseTimeoutMax = std::chrono::hours(1);
// With less the C client gives connections up before they are made. The server asks for more anyway.
constexpr Duration kSessionTimeoutMin = std::chrono::milliseconds(100);
constexpr Duration kSessionTimeoutMax = std::chrono::hours(24);  // in milliseconds it must fit into an int

std::string ChrootOf(const std::string& hosts) {
  std::size_t slash = hosts.find('/');
  std::string chroot = slash == hosts.npos ? "" : hosts.substr(slash);
  return chroot == "/" ? "" : chroot;
}

// Whether the C client keeps the watch of a request that ended with `rc`.
bool StaysWatched(Request::Kind kind, int rc) { return rc == ZOK || (rc == ZNONODE && kind == Request::Kind::kExists); }

// The C client has copied them.
void ReleaseBodies(Request& request) {
  request.data = {};
  for (Op& op : request.ops) op.data = {};
}

}  // namespace

// Lock order: delivery_mu_ before mu_. mu_ is never held while code of the user runs (the log sink apart), and neither
// is held while a handle is made or closed.
class CClient::Impl final : public CallOwner {
 public:
  Impl(Environment& environment, CClientOptions options);
  ~Impl();

  void Submit(Request request, Completion done);
  void ObserveSession(SessionObserver observer);
  SessionEvent session() const;
  Instant last_answered_sent_at() const;
  std::size_t watched_path_bytes() const;
  std::size_t request_bytes_max() const { return options_.request_bytes_max; }
  void Close(Duration timeout);

 private:
  struct Watch {
    Watcher watcher;  // empty: its request had timed out, nobody wants to know
    std::string path;
    std::size_t bytes = 0;
  };
  // What is to be told to the user once mu_ is free again. Also takes what must not be destroyed under mu_.
  struct Delivery {
    std::vector<std::pair<Completion, Response>> completions;
    std::vector<Watch> lost;
    std::list<CClientCall> garbage;
  };

  // Called by the C client: on its completion thread, and on any thread.
  static void OnSessionEvent(zhandle_t* handle, int type, int state, const char* path, void* context);
  static void OnWatchEvent(zhandle_t* handle, int type, int state, const char* path, void* context);
  void OnReply(CClientCall& call, int rc, Response response) override;
  void OnLogLine(LogLevel level, std::string_view text);

  void OnConnected(zhandle_t* handle);
  void OnDisconnected();
  void OnExpired();
  void OnWatch(std::uint64_t id, int type);

  void RunHandleThread();
  void OpenHandle();
  void ReplaceHandle();
  void CloseHandle();

  void RunTimerThread();
  void DeliverRefusalsAndTimeouts();

  // With delivery_mu_ held.
  void Tell(Delivery delivery);
  void TellObservers(const SessionEvent& event);

  // With mu_ held.
  std::size_t BytesOnWire(const Request& request) const;
  bool CanSend() const;
  void Enqueue(Request request, Completion done);
  void SendWhatFits();
  void Send(std::list<CClientCall>& queue);
  void Refuse(Completion done, Response response);
  void TimeOut(CClientCall& call, Delivery& delivery);
  void EndSent(Code code, Delivery& delivery);
  void EndQueued(Code code, Delivery& delivery);
  void EndWatches(Delivery& delivery);
  Completion TakeCompletion(CClientCall& call);

  // Constant after construction.
  Environment& environment_;
  const CClientOptions options_;
  const std::string chroot_;
  const int session_timeout_ms_;
  const CClientLog log_;

  // Held while the user's completions, watchers and observers run.
  std::mutex delivery_mu_;
  std::vector<SessionObserver> observers_;  // guarded by delivery_mu_

  mutable std::mutex mu_;
  // Guarded by mu_, to the end. The handle is closed only after it was taken out of handle_.
  zhandle_t* handle_ = nullptr;
  SessionEvent event_;
  bool is_expired_ = false;  // the handle is to be replaced
  bool is_closing_ = false;
  bool is_closed_ = false;
  bool is_ending_ = false;  // the timer thread is to end
  // Connections lost: noticed by the socket's thread, and arrived on the completion thread. While they differ, the
  // session looks connected but is not.
  std::uint64_t losses_noticed_ = 0;
  std::uint64_t losses_arrived_ = 0;

  std::list<CClientCall> queued_[kPriorities];
  int queued_count_ = 0;
  std::list<CClientCall> sent_;  // until the C client is done with them
  std::size_t sent_bytes_ = 0;
  std::set<std::pair<Instant, CClientCall*>> deadlines_;  // of calls whose completion has not run
  Instant last_answered_sent_at_{};

  std::map<std::uint64_t, Watch> watches_;
  std::uint64_t watch_ids_given_ = 0;
  std::size_t watch_bytes_ = 0;  // of watches_ and of requests that ask for one

  std::vector<std::pair<Completion, Response>> refusals_;  // for the timer thread
  std::vector<SessionObserver> new_observers_;
  Instant timer_wakes_at_{};
  std::condition_variable timer_changed_;
  std::condition_variable handle_changed_;
  std::condition_variable closed_;

  std::thread timer_thread_;
  std::thread handle_thread_;
};

CClient::Impl::Impl(Environment& environment, CClientOptions options)
    : environment_(environment),
      options_(std::move(options)),
      chroot_(ChrootOf(options_.hosts)),
      session_timeout_ms_(
          static_cast<int>(std::chrono::duration_cast<std::chrono::milliseconds>(
                               std::clamp(options_.session_timeout, kSessionTimeoutMin, kSessionTimeoutMax))
                               .count())),
      log_([this](LogLevel level, std::string_view text) { OnLogLine(level, text); }) {
  zoo_set_debug_level(static_cast<ZooLogLevel>(options_.log_level));
  timer_thread_ = std::thread([this] { RunTimerThread(); });
  handle_thread_ = std::thread([this] { RunHandleThread(); });
}

CClient::Impl::~Impl() {
  Close(Duration::zero());
  handle_thread_.join();
  {
    std::lock_guard lock(mu_);
    is_ending_ = true;
    timer_changed_.notify_all();
  }
  timer_thread_.join();
}

// ---- what the user calls ----

void CClient::Impl::Submit(Request request, Completion done) {
  std::optional<std::size_t> invalid = FirstInvalidPath(request);
  std::unique_lock lock(mu_);
  if (is_closing_) {
    Refuse(std::move(done), Refusal(request, Code::kClosed));
  } else if (BytesOnWire(request) > options_.request_bytes_max) {
    Refuse(std::move(done), Refusal(request, Code::kTooLarge));
  } else if (invalid) {
    Refuse(std::move(done), Refusal(request, Code::kBadArguments, *invalid));
  } else if (event_.state != SessionState::kConnected || queued_count_ >= kQueuedRequestsMax) {
    Refuse(std::move(done), Refusal(request, Code::kNotConnected));
  } else {
    Enqueue(std::move(request), std::move(done));
    SendWhatFits();
  }
}

void CClient::Impl::ObserveSession(SessionObserver observer) {
  std::lock_guard lock(mu_);
  new_observers_.push_back(std::move(observer));
  timer_changed_.notify_all();
}

SessionEvent CClient::Impl::session() const {
  std::lock_guard lock(mu_);
  return event_;
}

Instant CClient::Impl::last_answered_sent_at() const {
  std::lock_guard lock(mu_);
  return last_answered_sent_at_;
}

std::size_t CClient::Impl::watched_path_bytes() const {
  std::lock_guard lock(mu_);
  return watch_bytes_;
}

void CClient::Impl::Close(Duration timeout) {
  std::unique_lock lock(mu_);
  is_closing_ = true;
  handle_changed_.notify_all();
  closed_.wait_for(lock, std::clamp(timeout, Duration::zero(), kCloseTimeoutMax), [this] { return is_closed_; });
}

// ---- requests ----

std::size_t CClient::Impl::BytesOnWire(const Request& request) const {
  return WireBytes(request) + chroot_.size() * std::max<std::size_t>(1, request.ops.size());
}

void CClient::Impl::Enqueue(Request request, Completion done) {
  std::list<CClientCall>& queue = queued_[static_cast<int>(request.priority)];
  CClientCall& call = queue.emplace_back();
  call.owner = this;
  call.self = std::prev(queue.end());
  call.bytes = BytesOnWire(request);
  call.deadline = environment_.Now() + std::clamp(request.timeout, Duration::zero(), kTimeoutMax);
  if (request.watcher) {
    call.watch_id = ++watch_ids_given_;
    call.watch_bytes = chroot_.size() + request.path.size();
    watch_bytes_ += call.watch_bytes;
  }
  call.request = std::move(request);
  call.done = std::move(done);
  ++queued_count_;
  deadlines_.emplace(call.deadline, &call);
  if (call.deadline < timer_wakes_at_) timer_changed_.notify_all();
}

bool CClient::Impl::CanSend() const {
  return handle_ != nullptr && event_.state == SessionState::kConnected && losses_noticed_ == losses_arrived_ &&
         zoo_state(handle_) == ZOO_CONNECTED_STATE;
}

void CClient::Impl::SendWhatFits() {
  for (std::list<CClientCall>& queue : queued_) {
    while (!queue.empty()) {
      if (sent_.size() >= kInFlightRequestsMax || sent_bytes_ + queue.front().bytes > kInFlightBytesMax) return;
      if (!CanSend()) return;
      Send(queue);
    }
  }
}

void CClient::Impl::Send(std::list<CClientCall>& queue) {
  CClientCall& call = queue.front();
  sent_.splice(sent_.end(), queue, call.self);
  --queued_count_;
  sent_bytes_ += call.bytes;
  call.is_sent = true;
  call.sent_at = environment_.Now();
  int rc = SendCall(handle_, call, &OnWatchEvent);
  ReleaseBodies(call.request);
  if (rc == ZOK) return;
  // Out of memory, or a handle that has just expired. Whether the C client will still come back to this call is not
  // to be known, so it stays where it is until the handle is closed.
  Refuse(TakeCompletion(call), Refusal(call.request, Code::kConnectionLoss));
}

void CClient::Impl::Refuse(Completion done, Response response) {
  refusals_.emplace_back(std::move(done), std::move(response));
  timer_changed_.notify_all();
}

CClient::Completion CClient::Impl::TakeCompletion(CClientCall& call) {
  deadlines_.erase({call.deadline, &call});
  return std::exchange(call.done, nullptr);
}

void CClient::Impl::OnReply(CClientCall& call, int rc, Response response) {
  std::lock_guard delivery_lock(delivery_mu_);
  std::list<CClientCall> garbage;  // destroyed without mu_
  Completion done;
  {
    std::lock_guard lock(mu_);
    if (IsAnswer(rc)) last_answered_sent_at_ = std::max(last_answered_sent_at_, call.sent_at);
    done = TakeCompletion(call);
    if (call.watch_id != 0 && StaysWatched(call.request.kind, rc)) {
      Watcher watcher = done ? std::move(call.request.watcher) : Watcher();
      watches_.emplace(call.watch_id, Watch{std::move(watcher), call.request.path, call.watch_bytes});
    } else {
      watch_bytes_ -= call.watch_bytes;
    }
    sent_bytes_ -= call.bytes;
    garbage.splice(garbage.end(), sent_, call.self);
    SendWhatFits();
  }
  if (done) done(std::move(response));
}

void CClient::Impl::TimeOut(CClientCall& call, Delivery& delivery) {
  delivery.completions.emplace_back(TakeCompletion(call), Refusal(call.request, Code::kTimeout));
  if (call.is_sent) return;
  --queued_count_;
  watch_bytes_ -= call.watch_bytes;
  delivery.garbage.splice(delivery.garbage.end(), queued_[static_cast<int>(call.request.priority)], call.self);
}

void CClient::Impl::EndSent(Code code, Delivery& delivery) {
  for (CClientCall& call : sent_) {
    if (call.done) delivery.completions.emplace_back(TakeCompletion(call), Refusal(call.request, code));
  }
}

void CClient::Impl::EndQueued(Code code, Delivery& delivery) {
  for (std::list<CClientCall>& queue : queued_) {
    for (CClientCall& call : queue) {
      delivery.completions.emplace_back(TakeCompletion(call), Refusal(call.request, code));
      watch_bytes_ -= call.watch_bytes;
    }
    delivery.garbage.splice(delivery.garbage.end(), queue);
  }
  queued_count_ = 0;
}

void CClient::Impl::EndWatches(Delivery& delivery) {
  for (auto& [id, watch] : watches_) {
    watch_bytes_ -= watch.bytes;
    delivery.lost.push_back(std::move(watch));
  }
  watches_.clear();
}

void CClient::Impl::Tell(Delivery delivery) {
  for (auto& [done, response] : delivery.completions) done(std::move(response));
  for (Watch& watch : delivery.lost) {
    if (watch.watcher) watch.watcher({WatchType::kLost, std::move(watch.path)});
  }
}

void CClient::Impl::TellObservers(const SessionEvent& event) {
  for (const SessionObserver& observer : observers_) observer(event);
}

// ---- events from the C client ----

void CClient::Impl::OnWatchEvent(zhandle_t* handle, int type, int, const char*, void* context) {
  if (type == ZOO_SESSION_EVENT) return;  // the C client tells every watcher; OnSessionEvent is enough
  auto* impl = static_cast<Impl*>(const_cast<void*>(zoo_get_context(handle)));
  impl->OnWatch(reinterpret_cast<std::uintptr_t>(context), type);
}

void CClient::Impl::OnWatch(std::uint64_t id, int type) {
  std::lock_guard delivery_lock(delivery_mu_);
  Watch watch;
  {
    std::lock_guard lock(mu_);
    auto found = watches_.find(id);
    if (found == watches_.end()) return;  // lost with its session, a moment ago
    watch = std::move(found->second);
    watches_.erase(found);
    watch_bytes_ -= watch.bytes;
  }
  if (watch.watcher) watch.watcher({WatchTypeOf(type), std::move(watch.path)});
}

void CClient::Impl::OnSessionEvent(zhandle_t* handle, int type, int state, const char*, void* context) {
  if (type != ZOO_SESSION_EVENT) return;
  auto* impl = static_cast<Impl*>(context);
  std::lock_guard delivery_lock(impl->delivery_mu_);
  if (state == ZOO_CONNECTED_STATE) {
    impl->OnConnected(handle);
  } else if (state == ZOO_CONNECTING_STATE) {
    impl->OnDisconnected();
  } else if (state == ZOO_EXPIRED_SESSION_STATE || state == ZOO_AUTH_FAILED_STATE) {
    impl->OnExpired();  // no credentials are ever sent, so that the second is not to happen
  }
}

void CClient::Impl::OnConnected(zhandle_t* handle) {
  SessionEvent event;
  {
    std::lock_guard lock(mu_);
    if (is_closing_) return;
    handle_ = handle;  // this thread may be quicker than the one that is just making the handle
    event_ = {.state = SessionState::kConnected,
              .session_id = zoo_client_id(handle)->client_id,
              .timeout = std::chrono::milliseconds(zoo_recv_timeout(handle))};
    event = event_;
    SendWhatFits();
  }
  TellObservers(event);
}

void CClient::Impl::OnDisconnected() {
  Delivery delivery;
  SessionEvent event;
  {
    std::lock_guard lock(mu_);
    if (losses_arrived_ < losses_noticed_) ++losses_arrived_;
    if (is_closing_ || event_.state != SessionState::kConnected) return;
    event_.state = SessionState::kConnecting;
    event = event_;
    EndSent(Code::kConnectionLoss, delivery);
    EndQueued(Code::kNotConnected, delivery);
  }
  Tell(std::move(delivery));
  TellObservers(event);
}

void CClient::Impl::OnExpired() {
  std::lock_guard lock(mu_);
  is_expired_ = true;
  handle_changed_.notify_all();
}

void CClient::Impl::OnLogLine(LogLevel level, std::string_view text) {
  // The C client logs every failure of a connection in this form, on the socket's thread, before it changes the
  // handle's state. Here is the only chance to keep requests from getting into it between two connections. That must
  // be: a multi sent to a handle that expires meanwhile makes the C client of ZooKeeper 3.8 free memory that it does
  // not own.
  if (level == LogLevel::kError && text.find("zk retcode=") != text.npos) {
    std::lock_guard lock(mu_);
    if (handle_ != nullptr && zoo_state(handle_) == ZOO_CONNECTED_STATE) ++losses_noticed_;
  }
  if (options_.log_sink && level <= options_.log_level) options_.log_sink(level, text);
}

// ---- the thread that makes and closes handles ----

void CClient::Impl::RunHandleThread() {
  pthread_setname_np(pthread_self(), "zk-handle");
  std::unique_lock lock(mu_);
  while (!is_closing_) {
    if (is_expired_) {
      lock.unlock();
      ReplaceHandle();
      lock.lock();
    } else if (handle_ == nullptr) {
      lock.unlock();
      OpenHandle();
      lock.lock();
      if (handle_ == nullptr) handle_changed_.wait_for(lock, kOpenRetryDelay, [this] { return is_closing_; });
    } else {
      handle_changed_.wait(lock);
    }
  }
  lock.unlock();
  CloseHandle();
}

void CClient::Impl::OpenHandle() {
  zhandle_t* handle = zookeeper_init2(options_.hosts.c_str(), &OnSessionEvent, session_timeout_ms_, nullptr, this,
                                      ZOO_NO_LOG_CLIENTENV, log_.callback());
  if (handle == nullptr) {
    OnLogLine(LogLevel::kError, "no server to connect to in " + Quoted(options_.hosts) + "; trying again");
    return;
  }
  // Names are resolved again whenever there is no connection; with -1 not also at every turn of the loop while there
  // is.
  zoo_set_servers_resolution_delay(handle, -1);
  std::lock_guard lock(mu_);
  handle_ = handle;
}

void CClient::Impl::ReplaceHandle() {
  zhandle_t* handle;
  {
    std::lock_guard lock(mu_);
    handle = std::exchange(handle_, nullptr);
    event_.state = SessionState::kExpired;
  }
  zookeeper_close(handle);  // from here on the C client knows nothing of our calls

  std::lock_guard delivery_lock(delivery_mu_);
  Delivery delivery;
  SessionEvent event;
  {
    std::lock_guard lock(mu_);
    is_expired_ = false;
    losses_noticed_ = losses_arrived_ = 0;
    event = event_;
    EndSent(Code::kSessionExpired, delivery);
    EndQueued(Code::kNotConnected, delivery);
    EndWatches(delivery);
    delivery.garbage.splice(delivery.garbage.end(), sent_);
    sent_bytes_ = 0;
    watch_bytes_ = 0;
  }
  Tell(std::move(delivery));
  TellObservers(event);
}

void CClient::Impl::CloseHandle() {
  zhandle_t* handle;
  {
    std::lock_guard delivery_lock(delivery_mu_);
    Delivery delivery;
    SessionEvent event;
    {
      std::lock_guard lock(mu_);
      handle = std::exchange(handle_, nullptr);
      event_.state = SessionState::kClosed;
      event = event_;
      EndSent(Code::kClosed, delivery);
      EndQueued(Code::kClosed, delivery);
      EndWatches(delivery);
    }
    Tell(std::move(delivery));
    TellObservers(event);
  }
  if (handle != nullptr) zookeeper_close(handle);

  std::list<CClientCall> garbage;  // destroyed without mu_
  std::lock_guard lock(mu_);
  garbage.splice(garbage.end(), sent_);
  is_closed_ = true;
  closed_.notify_all();
}

// ---- the thread that delivers what no server sent ----

void CClient::Impl::RunTimerThread() {
  pthread_setname_np(pthread_self(), "zk-timer");
  std::unique_lock lock(mu_);
  while (true) {
    Instant now = environment_.Now();
    bool is_late = !deadlines_.empty() && deadlines_.begin()->first <= now;
    if (is_late || !refusals_.empty() || !new_observers_.empty()) {
      lock.unlock();
      DeliverRefusalsAndTimeouts();
      lock.lock();
      continue;
    }
    if (is_ending_) return;
    timer_wakes_at_ = now + kTimerSleepMax;
    if (!deadlines_.empty()) timer_wakes_at_ = std::min(timer_wakes_at_, deadlines_.begin()->first);
    timer_changed_.wait_for(lock, timer_wakes_at_ - now);
  }
}

void CClient::Impl::DeliverRefusalsAndTimeouts() {
  std::lock_guard delivery_lock(delivery_mu_);
  Delivery delivery;
  std::vector<SessionObserver> new_observers;
  SessionEvent event;
  {
    std::lock_guard lock(mu_);
    delivery.completions.swap(refusals_);
    new_observers.swap(new_observers_);
    event = event_;
    Instant now = environment_.Now();
    while (!deadlines_.empty() && deadlines_.begin()->first <= now) TimeOut(*deadlines_.begin()->second, delivery);
  }
  Tell(std::move(delivery));
  for (SessionObserver& observer : new_observers) {
    observer(event);
    observers_.push_back(std::move(observer));
  }
}

// ---- the door ----

CClient::CClient(Environment& environment, CClientOptions options)
    : impl_(std::make_unique<Impl>(environment, std::move(options))) {}

CClient::~CClient() = default;

void CClient::Submit(Request request, Completion done) { impl_->Submit(std::move(request), std::move(done)); }

void CClient::ObserveSession(SessionObserver observer) { impl_->ObserveSession(std::move(observer)); }

SessionEvent CClient::session() const { return impl_->session(); }

Instant CClient::last_answered_sent_at() const { return impl_->last_answered_sent_at(); }

std::size_t CClient::watched_path_bytes() const { return impl_->watched_path_bytes(); }

std::size_t CClient::request_bytes_max() const { return impl_->request_bytes_max(); }

void CClient::Close(Duration timeout) { impl_->Close(timeout); }

}  // namespace postkeeper::zk
