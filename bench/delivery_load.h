// Messages all the way: in at one end, and out and settled (or received) at the other, both at once.
#ifndef POSTKEEPER_BENCH_DELIVERY_LOAD_H_
#define POSTKEEPER_BENCH_DELIVERY_LOAD_H_

#include <cstdint>
#include <memory>
#include <string>

#include "bench/append_load.h"
#include "bench/load.h"

namespace postkeeper::bench {

struct DeliveryShape {
  AppendShape append;
  int consumers = 2;                   // Consume streams, each with a connection of its own
  int credit_messages = 10'000;        // of each consumer: what it holds unsettled at most
  std::int64_t backlog_max = 100'000;  // appended and not yet settled; past it the producers pause
};

// EnqueueStream into a queue and Consume out of it. Every frame of deliveries is acked with one frame. Counts messages
// whose ack was answered without a failure, that is which are durably settled. A message that comes a second time is
// a failure: nothing here lets a lease lapse.
std::unique_ptr<Load> MakeConsumeLoad(const std::string& address, const std::string& queue, const DeliveryShape& shape);

// PublishStream into a topic and one Subscribe out of it. Counts messages that the subscriber received.
std::unique_ptr<Load> MakeSubscribeLoad(const std::string& address, const std::string& topic,
                                        const DeliveryShape& shape);

}  // namespace postkeeper::bench

#endif  // POSTKEEPER_BENCH_DELIVERY_LOAD_H_
