// A client whose requests fail when the test wants it.
#ifndef POSTKEEPER_ZKSTORE_FAULT_INJECTOR_H_
#define POSTKEEPER_ZKSTORE_FAULT_INJECTOR_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <utility>

#include "zkstore/client.h"
#include "zkstore/environment.h"
#include "zkstore/simulated_environment.h"

namespace postkeeper::zk {

enum class Fault {
  kLostBefore,  // the request is not sent; kConnectionLoss is reported
  kLostAfter,   // the request is carried out; kConnectionLoss is reported in place of the reply
  kDelay,       // the request, and all that are submitted after it, are sent later
};

// Which requests a fault befalls, and how often.
struct FaultRule {
  Fault fault = Fault::kLostBefore;
  std::function<bool(const Request&)> matches;  // empty: every request
  double probability = 1;
  int times_max = std::numeric_limits<int>::max();
  Duration delay{};  // of kDelay
};

// Wraps another client. Works on any of them, the real one too. A request is befallen by the first rule that matches
// it and whose dice, thrown from the seed, fall that way.
//
// It differs from a connection that really breaks in this: only the chosen request fails, those around it do not, and
// the session knows of nothing. What can happen to many requests at once is for SimulatedClient. A loss is reported no
// earlier than the answers of all requests that were submitted before, so the order of answers stays what it was. The
// watch of a request that fails is not set.
//
// Thread-safe. Completions and watchers run where the wrapped client runs them; a loss that need not wait for another
// answer is reported on a strand of the environment. Does not own the wrapped client, which must outlive it, and so
// must the environment. Close and the destructor end with kClosed what a delay still holds back; Close also closes the
// wrapped client, while requests on their way at the destructor are answered as if it were still there.
class FaultInjector : public Client {
 public:
  FaultInjector(Environment& environment, Client& client, std::uint64_t seed);
  ~FaultInjector() override;
  FaultInjector(const FaultInjector&) = delete;
  FaultInjector& operator=(const FaultInjector&) = delete;

  void AddRule(FaultRule rule);
  // From now on nothing fails. What is held back by a delay stays so until its time comes.
  void ClearRules();
  // How often a fault has befallen a request.
  std::int64_t fired(Fault fault) const;

  void Submit(Request request, Completion done) override;
  void ObserveSession(SessionObserver observer) override { client_.ObserveSession(std::move(observer)); }
  SessionEvent session() const override { return client_.session(); }
  Instant last_answered_sent_at() const override { return client_.last_answered_sent_at(); }
  std::size_t watched_path_bytes() const override { return client_.watched_path_bytes(); }
  std::size_t request_bytes_max() const override { return client_.request_bytes_max(); }
  void Close(Duration timeout) override;

 private:
  // Outlives the injector as long as requests are on their way.
  struct State;

  Client& client_;
  const std::shared_ptr<State> state_;
};

}  // namespace postkeeper::zk

#endif  // POSTKEEPER_ZKSTORE_FAULT_INJECTOR_H_
