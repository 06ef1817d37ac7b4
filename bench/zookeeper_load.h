// What ZooKeeper itself can do: writes without postkeeper, the ceilings of everything that is durable.
#ifndef POSTKEEPER_BENCH_ZOOKEEPER_LOAD_H_
#define POSTKEEPER_BENCH_ZOOKEEPER_LOAD_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "bench/load.h"
#include "zkstore/client.h"

namespace postkeeper::bench {

// A session with ZooKeeper and a scratch znode in it. They go when this is destroyed, which also deletes everything
// that loads have left below the scratch znode. Outlives its loads.
class ZookeeperBench {
 public:
  virtual ~ZookeeperBench() = default;

  // UNAVAILABLE if there is no session within ten seconds.
  static absl::StatusOr<std::unique_ptr<ZookeeperBench>> Connect(const std::string& hosts);

  // Sequential creates, so many at a time, each of a batch with one message: what a queue with one message in each
  // znode does.
  virtual std::unique_ptr<Load> MakeCreateLoad(int in_flight, int body_bytes) = 0;

  // The multi with which postkeeperd appends a batch: set(producer, v), check(segment, 0), create(b-, SEQUENTIAL), v
  // rising by one. The batch is a real one, of so many messages with bodies of so many bytes. Counts messages.
  virtual std::unique_ptr<Load> MakeAppendLoad(int in_flight, int messages, int body_bytes) = 0;
};

// The most that one session takes at a time.
inline constexpr int kInFlightMax = zk::Client::kInFlightRequestsMax;

}  // namespace postkeeper::bench

#endif  // POSTKEEPER_BENCH_ZOOKEEPER_LOAD_H_
