// A ZooKeeper client that counts what goes through it.
#ifndef POSTKEEPER_SERVICE_METERED_CLIENT_H_
#define POSTKEEPER_SERVICE_METERED_CLIENT_H_

#include <atomic>
#include <memory>

#include "metrics/metrics.h"
#include "zkstore/client.h"

namespace postkeeper {

// Passes everything on to `client` and tells the metrics how each request ended and how long it took. Thread-safe; both
// must outlive it, and it must outlive all requests.
class MeteredClient : public zk::Client {
 public:
  MeteredClient(Environment& environment, zk::Client& client, Metrics& metrics);
  ~MeteredClient() override;

  void Submit(zk::Request request, Completion done) override;
  void ObserveSession(SessionObserver observer) override { client_.ObserveSession(std::move(observer)); }
  zk::SessionEvent session() const override { return client_.session(); }
  Instant last_answered_sent_at() const override { return client_.last_answered_sent_at(); }
  std::size_t watched_path_bytes() const override { return client_.watched_path_bytes(); }
  std::size_t request_bytes_max() const override { return client_.request_bytes_max(); }
  void Close(Duration timeout) override { client_.Close(timeout); }

 private:
  Environment& environment_;
  zk::Client& client_;
  Metrics& metrics_;
  std::atomic<std::int64_t> in_flight_ = 0;
  // Counts the watchers that are alive; they may outlive this object.
  const std::shared_ptr<std::atomic<std::int64_t>> watches_ = std::make_shared<std::atomic<std::int64_t>>(0);
};

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_METERED_CLIENT_H_
