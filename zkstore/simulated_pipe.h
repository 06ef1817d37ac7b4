// One direction of a simulated connection.
#ifndef POSTKEEPER_ZKSTORE_SIMULATED_PIPE_H_
#define POSTKEEPER_ZKSTORE_SIMULATED_PIPE_H_

#include <deque>
#include <memory>

#include "absl/functional/any_invocable.h"
#include "zkstore/simulated_environment.h"

namespace postkeeper::zk {

// Delivers what is sent into it in the order sent, each after a latency drawn from the random source. What it delivers
// is a function, run at the other end.
//
// A stalled pipe delivers nothing and loses nothing, like a network that drops all packets while TCP goes on trying. An
// item can be held: it stays in the pipe, and so does what comes behind it, until Release.
//
// To be made with std::make_shared. The random source must outlive it.
class SimulatedPipe : public std::enable_shared_from_this<SimulatedPipe> {
 public:
  using Delivery = absl::AnyInvocable<void()>;

  SimulatedPipe(SimulatedEnvironment& environment, SimulatedRandom& random, Duration latency_min, Duration latency_max);

  void Send(Delivery delivery, bool is_held = false);
  void SetStalled(bool is_stalled);
  // Holds everything that is on its way.
  void HoldAll();
  // Lets held items go on.
  void Release();
  // What is on its way is lost, but for the first held item and what is behind it.
  void LoseAll();
  // As LoseAll, and held items with it.
  void LoseEvenHeld() { items_.clear(); }
  // Delivers what is on its way at once, up to the first held item. True: nothing is left.
  bool DeliverAllNow();

  bool is_empty() const { return items_.empty(); }
  std::size_t held() const;

 private:
  struct Item {
    Instant arrival;
    Delivery delivery;
    bool is_held;
  };

  void ScheduleArrival();
  void DeliverWhatHasArrived();

  SimulatedEnvironment& environment_;
  SimulatedRandom& random_;
  const Duration latency_min_;
  const Duration latency_max_;
  bool is_stalled_ = false;
  Instant last_arrival_;
  std::deque<Item> items_;
};

}  // namespace postkeeper::zk

#endif  // POSTKEEPER_ZKSTORE_SIMULATED_PIPE_H_
