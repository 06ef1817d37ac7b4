#include "zkstore/simulated_pipe.h"

#include <algorithm>

namespace postkeeper::zk {

SimulatedPipe::SimulatedPipe(SimulatedEnvironment& environment, SimulatedRandom& random, Duration latency_min,
                             Duration latency_max)
    : environment_(environment),
      random_(random),
      latency_min_(latency_min),
      latency_max_(latency_max),
      last_arrival_(environment.Now()) {}

void SimulatedPipe::Send(Delivery delivery, bool is_held) {
  Instant arrival = environment_.Now() + random_.Between(latency_min_, latency_max_);
  last_arrival_ = std::max(arrival, last_arrival_);
  items_.push_back({last_arrival_, std::move(delivery), is_held});
  ScheduleArrival();
}

void SimulatedPipe::ScheduleArrival() {
  environment_.RunAfter(last_arrival_ - environment_.Now(), [weak = weak_from_this()] {
    if (auto pipe = weak.lock()) pipe->DeliverWhatHasArrived();
  });
}

void SimulatedPipe::DeliverWhatHasArrived() {
  while (!is_stalled_ && !items_.empty() && !items_.front().is_held && items_.front().arrival <= environment_.Now()) {
    Delivery delivery = std::move(items_.front().delivery);
    items_.pop_front();
    delivery();  // may stall or empty this pipe
  }
}

void SimulatedPipe::SetStalled(bool is_stalled) {
  is_stalled_ = is_stalled;
  if (is_stalled) return;
  last_arrival_ = std::max(last_arrival_, environment_.Now() + random_.Between(latency_min_, latency_max_));
  ScheduleArrival();  // by then everything that waits has arrived
}

void SimulatedPipe::HoldAll() {
  for (Item& item : items_) item.is_held = true;
}

void SimulatedPipe::Release() {
  for (Item& item : items_) item.is_held = false;
  SetStalled(is_stalled_);
}

void SimulatedPipe::LoseAll() {
  auto held = std::find_if(items_.begin(), items_.end(), [](const Item& item) { return item.is_held; });
  items_.erase(items_.begin(), held);
}

bool SimulatedPipe::DeliverAllNow() {
  while (!items_.empty() && !items_.front().is_held) {
    Delivery delivery = std::move(items_.front().delivery);
    items_.pop_front();
    delivery();
  }
  return items_.empty();
}

std::size_t SimulatedPipe::held() const {
  return static_cast<std::size_t>(
      std::count_if(items_.begin(), items_.end(), [](const Item& item) { return item.is_held; }));
}

}  // namespace postkeeper::zk
