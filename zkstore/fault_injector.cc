#include "zkstore/fault_injector.h"

#include <algorithm>
#include <asio/post.hpp>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <vector>

namespace postkeeper::zk {

struct FaultInjector::State : std::enable_shared_from_this<FaultInjector::State> {
  struct Delayed {
    std::int64_t number;
    Request request;
    Completion done;
    bool is_lost_after;
    Instant release_at;
  };

  State(Environment& environment_in, Client& client_in, std::uint64_t seed)
      : environment(environment_in),
        client(client_in),
        strand(environment.MakeStrand()),
        timer(environment.MakeTimer(strand)),
        random(seed) {}

  // With mu held; the wrapped client runs no completion inside Submit, so its own locks are never taken before mu.
  std::optional<FaultRule> Throw(const Request& request);
  void Lose(Completion done);
  void Delay(Request request, Completion done, bool is_lost_after, Duration delay);
  std::int64_t NextNumber();
  void Send(std::int64_t number, Request request, Completion done, bool is_lost_after);

  void OnAnswer(std::int64_t number, bool is_lost_after, Completion done, Response response);
  // Reports the losses that have nothing unanswered before them, or all.
  void ReportLosses(bool all = false);
  void EndDelays();  // on the strand
  void FailDelayed();

  Environment& environment;
  Client& client;
  const asio::any_io_executor strand;
  const std::unique_ptr<Timer> timer;  // touched only on the strand

  std::mutex mu;
  // Guarded by mu.
  SimulatedRandom random;
  std::vector<FaultRule> rules;
  std::map<Fault, std::int64_t> fired;
  bool is_closed = false;
  std::int64_t submitted = 0;
  std::set<std::int64_t> unanswered;
  std::map<std::int64_t, Completion> losses;  // by the number of the request
  std::deque<Delayed> delayed;
};

std::optional<FaultRule> FaultInjector::State::Throw(const Request& request) {
  for (FaultRule& rule : rules) {
    if (rule.times_max <= 0 || (rule.matches && !rule.matches(request)) || !random.Chance(rule.probability)) continue;
    --rule.times_max;
    ++fired[rule.fault];
    return rule;
  }
  return std::nullopt;
}

std::int64_t FaultInjector::State::NextNumber() {
  unanswered.insert(++submitted);
  return submitted;
}

void FaultInjector::State::Lose(Completion done) {
  losses.emplace(++submitted, std::move(done));
  asio::post(strand, [state = shared_from_this()] { state->ReportLosses(); });
}

void FaultInjector::State::Delay(Request request, Completion done, bool is_lost_after, Duration delay) {
  Instant release_at = environment.Now() + delay;
  if (!delayed.empty()) release_at = std::max(release_at, delayed.back().release_at);
  delayed.push_back({NextNumber(), std::move(request), std::move(done), is_lost_after, release_at});
  if (delayed.size() > 1) return;
  asio::post(strand, [state = shared_from_this()] { state->EndDelays(); });
}

void FaultInjector::State::Send(std::int64_t number, Request request, Completion done, bool is_lost_after) {
  if (is_lost_after) request.watcher = nullptr;
  client.Submit(std::move(request),
                [state = shared_from_this(), number, is_lost_after, done = std::move(done)](Response response) mutable {
                  state->OnAnswer(number, is_lost_after, std::move(done), std::move(response));
                });
}

void FaultInjector::State::OnAnswer(std::int64_t number, bool is_lost_after, Completion done, Response response) {
  if (is_lost_after) {
    response = {};
    response.code = Code::kConnectionLoss;
  }
  done(std::move(response));
  {
    std::lock_guard lock(mu);
    unanswered.erase(number);
  }
  ReportLosses();
}

void FaultInjector::State::ReportLosses(bool all) {
  while (true) {
    Completion done;
    {
      std::lock_guard lock(mu);
      if (losses.empty()) return;
      auto first = losses.begin();
      if (!all && !unanswered.empty() && *unanswered.begin() < first->first) return;
      done = std::move(first->second);
      losses.erase(first);
    }
    Response loss;
    loss.code = Code::kConnectionLoss;
    done(std::move(loss));
  }
}

void FaultInjector::State::EndDelays() {
  std::lock_guard lock(mu);
  while (!delayed.empty() && delayed.front().release_at <= environment.Now()) {
    Delayed next = std::move(delayed.front());
    delayed.pop_front();
    Send(next.number, std::move(next.request), std::move(next.done), next.is_lost_after);
  }
  if (delayed.empty()) return;
  timer->Start(delayed.front().release_at - environment.Now(), [weak = weak_from_this()] {
    if (auto state = weak.lock()) state->EndDelays();
  });
}

void FaultInjector::State::FailDelayed() {
  std::deque<Delayed> failed;
  {
    std::lock_guard lock(mu);
    is_closed = true;
    failed.swap(delayed);
  }
  for (Delayed& item : failed) {
    Response closed;
    closed.code = Code::kClosed;
    item.done(std::move(closed));
  }
  ReportLosses(true);
}

FaultInjector::FaultInjector(Environment& environment, Client& client, std::uint64_t seed)
    : client_(client), state_(std::make_shared<State>(environment, client, seed)) {}

FaultInjector::~FaultInjector() { state_->FailDelayed(); }

void FaultInjector::AddRule(FaultRule rule) {
  std::lock_guard lock(state_->mu);
  state_->rules.push_back(std::move(rule));
}

void FaultInjector::ClearRules() {
  std::lock_guard lock(state_->mu);
  state_->rules.clear();
}

std::int64_t FaultInjector::fired(Fault fault) const {
  std::lock_guard lock(state_->mu);
  auto found = state_->fired.find(fault);
  return found == state_->fired.end() ? 0 : found->second;
}

void FaultInjector::Submit(Request request, Completion done) {
  std::lock_guard lock(state_->mu);
  std::optional<FaultRule> rule;
  if (!state_->is_closed) rule = state_->Throw(request);
  if (rule && rule->fault == Fault::kLostBefore) return state_->Lose(std::move(done));
  bool is_lost_after = rule && rule->fault == Fault::kLostAfter;
  Duration delay = rule && rule->fault == Fault::kDelay ? rule->delay : Duration(0);
  if (delay > Duration(0) || !state_->delayed.empty()) {
    return state_->Delay(std::move(request), std::move(done), is_lost_after, delay);
  }
  state_->Send(state_->NextNumber(), std::move(request), std::move(done), is_lost_after);
}

void FaultInjector::Close(Duration timeout) {
  state_->FailDelayed();
  client_.Close(timeout);
}

}  // namespace postkeeper::zk
