// grpc.health.v1.
#ifndef POSTKEEPER_SERVICE_HEALTH_SERVICE_H_
#define POSTKEEPER_SERVICE_HEALTH_SERVICE_H_

#include <atomic>
#include <memory>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/synchronization/mutex.h"
#include "service/desk.h"

namespace grpc {
class Service;
}

namespace postkeeper {

// What is known of this replica's health, and who wants to hear when it changes. "" and each of our services stand for
// ready (calls are served), "liveness" for the process itself: its loops turn, whatever ZooKeeper does. All are
// NOT_SERVING before the first Set.
//
// Thread-safe. Outlives the gRPC server.
class Health {
 public:
  class Watcher {
   public:
    virtual ~Watcher() = default;
    // Something has changed. Must return at once.
    virtual void Look() = 0;
    // The server stops: no watching any more.
    virtual void Stop() = 0;
  };

  enum class Status { kUnknownService, kServing, kNotServing };

  void Set(bool is_ready, bool is_live);
  Status Of(std::string_view service) const;

  // Held until Remove. False: the server stops.
  bool Add(const std::shared_ptr<Watcher>& watcher);
  void Remove(const std::shared_ptr<Watcher>& watcher);
  // Ends all watching; gRPC waits for open streams when it stops.
  void Close();

 private:
  std::atomic<bool> is_ready_ = false;
  std::atomic<bool> is_live_ = false;
  absl::Mutex mutex_;  // no watcher is called under it
  bool is_closed_ ABSL_GUARDED_BY(mutex_) = false;
  absl::flat_hash_set<std::shared_ptr<Watcher>> watchers_ ABSL_GUARDED_BY(mutex_);
};

// The service. Not held up by the gate: health can be asked for while calls are refused.
std::unique_ptr<grpc::Service> MakeHealthService(Desk& desk, Health& health);

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_HEALTH_SERVICE_H_
