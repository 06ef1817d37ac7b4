// A world for tests that are about CClient or about the servers themselves: they break the network on their own.
#ifndef POSTKEEPER_TESTS_CONTRACT_C_CLIENT_WORLD_H_
#define POSTKEEPER_TESTS_CONTRACT_C_CLIENT_WORLD_H_

#include <gtest/gtest.h>

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>

#include "tests/contract/world.h"
#include "zkstore/c_client.h"
#include "zkstore/real_environment.h"

namespace postkeeper::zk {

class CClientWorld : public World {
 public:
  // With options_; the test sets its hosts.
  std::unique_ptr<Client> MakeClient(WorldClientOptions options) override {
    CClientOptions c_options = options_;
    c_options.session_timeout = options.session_timeout;
    return std::make_unique<CClient>(environment_, c_options);
  }
  void Record(const std::function<void()>& change) override {
    std::lock_guard lock(mu_);
    change();
    changed_.notify_all();
  }
  bool WaitUntil(const std::function<bool()>& predicate) override {
    std::unique_lock lock(mu_);
    return changed_.wait_for(lock, std::chrono::seconds(60), predicate);
  }
  void Disconnect(Client&) override { FAIL() << "not used here"; }
  void CutOff(Client&) override { FAIL() << "not used here"; }
  void Reconnect(Client&) override { FAIL() << "not used here"; }
  void Expire(Client&) override { FAIL() << "not used here"; }

 protected:
  RealEnvironment environment_{1};
  CClientOptions options_;  // for the clients that a test makes

 private:
  std::mutex mu_;
  std::condition_variable changed_;
};

}  // namespace postkeeper::zk

#endif  // POSTKEEPER_TESTS_CONTRACT_C_CLIENT_WORLD_H_
