// What Debian's libzookeeper does by itself: the reasons why CClient uses it as it does. Should a later release behave
// in another way, this says so.
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zookeeper/zookeeper.h>

#include <array>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/tcp_relay.h"
#include "tests/support/zookeeper_server.h"

namespace postkeeper::zk {
namespace {

using std::chrono::seconds;
using testing::Each;
using testing::SizeIs;

constexpr int kCreate2Op = 15;  // in the protocol; the header does not name it
constexpr std::int64_t kTtlMs = 60'000;
// A bare handle of the C client.
class Handle {
 public:
  // Returns when it is connected.
  explicit Handle(const std::string& hosts, int session_timeout_ms = 10'000) {
    zoo_set_debug_level(ZOO_LOG_LEVEL_ERROR);
    // The state is told by whoever calls back, and asked for then.
    handle_ = zookeeper_init2(hosts.c_str(), &OnEvent, session_timeout_ms, nullptr, this, 0, &DropLogLine);
    EXPECT_TRUE(WaitFor([this] { return zoo_state(handle_) == ZOO_CONNECTED_STATE; }));
  }
  ~Handle() { zookeeper_close(handle_); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  zhandle_t* get() { return handle_; }

  // The synchronous result of `send` if that is an error, else what its completion says.
  int Call(const std::function<int(Handle&)>& send) {
    {
      std::lock_guard lock(mu_);
      result_.reset();
    }
    int sent = send(*this);
    if (sent != ZOK) return sent;
    EXPECT_TRUE(WaitFor([this] { return result_.has_value(); }));
    std::lock_guard lock(mu_);
    return result_.value_or(ZSYSTEMERROR);
  }
  int Create(const std::string& path, int mode) {
    return Call([&](Handle& self) {
      return zoo_acreate(handle_, path.c_str(), "", 0, &ZOO_OPEN_ACL_UNSAFE, mode, &OnString, &self);
    });
  }
  int CreateTtl(const std::string& path) {
    return Call([&](Handle& self) {
      return zoo_acreate_ttl(handle_, path.c_str(), "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_PERSISTENT_WITH_TTL, kTtlMs,
                             &OnString, &self);
    });
  }
  // Sets a watch for the making or deletion of `path`.
  int Watch(const std::string& path) {
    return Call([&](Handle& self) { return zoo_awexists(handle_, path.c_str(), &OnWatch, &self, &OnStat, &self); });
  }
  int Multi(zoo_op_t op) {
    op_ = op;
    return Call([&](Handle& self) { return zoo_amulti(handle_, 1, &op_, &op_result_, &OnVoid, &self); });
  }

  // Waits until the predicate holds, looking whenever the C client has called back.
  bool WaitFor(const std::function<bool()>& predicate) {
    std::unique_lock lock(mu_);
    return changed_.wait_for(lock, seconds(20), predicate);
  }
  // The threads on which completions and watchers ran, each time.
  std::vector<std::thread::id> completion_threads() { return Copy(completion_threads_); }
  std::vector<std::thread::id> watcher_threads() { return Copy(watcher_threads_); }
  bool WaitForWatches(std::size_t count) {
    return WaitFor([&] { return watcher_threads_.size() >= count; });
  }

 private:
  static void DropLogLine(const char*) {}
  static void OnEvent(zhandle_t*, int, int, const char*, void* context) {
    // zookeeper_init2 may call back before it has returned the handle.
    auto* self = static_cast<Handle*>(context);
    std::lock_guard lock(self->mu_);
    self->changed_.notify_all();
  }
  static void OnWatch(zhandle_t*, int type, int, const char*, void* context) {
    auto* self = static_cast<Handle*>(context);
    if (type == ZOO_SESSION_EVENT) return;
    std::lock_guard lock(self->mu_);
    self->watcher_threads_.push_back(std::this_thread::get_id());
    self->changed_.notify_all();
  }
  static void OnVoid(int rc, const void* data) {
    auto* self = static_cast<Handle*>(const_cast<void*>(data));
    std::lock_guard lock(self->mu_);
    self->completion_threads_.push_back(std::this_thread::get_id());
    self->result_ = rc;
    self->changed_.notify_all();
  }
  static void OnString(int rc, const char*, const void* data) { OnVoid(rc, data); }
  static void OnStat(int rc, const struct Stat*, const void* data) { OnVoid(rc, data); }

  std::vector<std::thread::id> Copy(const std::vector<std::thread::id>& threads) {
    std::lock_guard lock(mu_);
    return threads;
  }

  std::mutex mu_;
  std::condition_variable changed_;
  std::optional<int> result_;
  std::vector<std::thread::id> completion_threads_, watcher_threads_;
  zoo_op_t op_{};
  zoo_op_result_t op_result_{};
  zhandle_t* handle_ = nullptr;
};

class LibzookeeperTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    server = new ZookeeperServer();
    server->Start();
  }
  static void TearDownTestSuite() { delete server; }

  static ZookeeperServer* server;
};

ZookeeperServer* LibzookeeperTest::server = nullptr;

// Debian's build can neither encrypt nor authenticate: the functions for it are not there.
TEST_F(LibzookeeperTest, HasNeitherTlsNorSasl) {
  ASSERT_NE(dlsym(RTLD_DEFAULT, "zookeeper_init2"), nullptr);
  EXPECT_EQ(dlsym(RTLD_DEFAULT, "zookeeper_init_ssl"), nullptr);
  EXPECT_EQ(dlsym(RTLD_DEFAULT, "zookeeper_init_sasl"), nullptr);
}

// A multi has no create2, whose reply would carry a Stat.
TEST_F(LibzookeeperTest, MultisHaveNoCreate2) {
  Handle handle(server->hosts());
  zoo_op_t op;
  std::array<char, 64> path;
  zoo_create_op_init(&op, "/create2", "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_PERSISTENT, path.data(), path.size());
  op.type = kCreate2Op;
  EXPECT_EQ(handle.Multi(op), ZUNIMPLEMENTED);
  op.type = ZOO_CREATE_OP;
  EXPECT_EQ(handle.Multi(op), ZOK);
}

// A multi cannot make a znode that vanishes after a time, not even on a server that has such znodes: the C client
// refuses it.
TEST(LibzookeeperTtlTest, MultisHaveNoTtl) {
  ZookeeperServer server({.java_flags = {"-Dzookeeper.extendedTypesEnabled=true"}});
  server.Start();
  Handle handle(server.hosts());
  EXPECT_EQ(handle.CreateTtl("/plain"), ZOK);
  zoo_op_t op;
  std::array<char, 64> path;
  zoo_create_op_init(&op, "/multi", "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_PERSISTENT_WITH_TTL, path.data(), path.size());
  op.create_op.ttl = kTtlMs;
  EXPECT_EQ(handle.Multi(op), ZUNIMPLEMENTED);
  EXPECT_EQ(handle.Watch("/multi"), ZNONODE);
}

// Completions and watchers of a handle all run on the same thread: one that waits keeps all others waiting.
TEST_F(LibzookeeperTest, OneThreadRunsCompletionsAndWatchers) {
  Handle handle(server->hosts());
  for (const char* path : {"/thread-a", "/thread-b", "/thread-c"}) {
    EXPECT_EQ(handle.Watch(path), ZNONODE);
    EXPECT_EQ(handle.Create(path, ZOO_PERSISTENT), ZOK);
  }
  ASSERT_TRUE(handle.WaitForWatches(3));
  ASSERT_THAT(handle.completion_threads(), SizeIs(6));
  const std::thread::id thread = handle.completion_threads().front();
  EXPECT_NE(thread, std::this_thread::get_id());
  EXPECT_THAT(handle.completion_threads(), Each(thread));
  EXPECT_THAT(handle.watcher_threads(), Each(thread));
}

// A handle whose session has expired never works again, though the server can be reached.
TEST_F(LibzookeeperTest, AnExpiredSessionIsFinal) {
  TcpRelay relay(server->port());
  Handle witness(server->hosts());
  Handle handle(relay.hosts(), 400);
  ASSERT_EQ(handle.Create("/expires", ZOO_EPHEMERAL), ZOK);
  ASSERT_EQ(witness.Watch("/expires"), ZOK);
  relay.Cut();
  ASSERT_TRUE(witness.WaitForWatches(1));
  relay.Restore();
  ASSERT_TRUE(handle.WaitFor([&] { return zoo_state(handle.get()) == ZOO_EXPIRED_SESSION_STATE; }));
  EXPECT_EQ(is_unrecoverable(handle.get()), ZINVALIDSTATE);
  EXPECT_EQ(handle.Create("/later", ZOO_PERSISTENT), ZINVALIDSTATE);
  EXPECT_EQ(witness.Create("/later", ZOO_PERSISTENT), ZOK);
  EXPECT_EQ(zoo_state(handle.get()), ZOO_EXPIRED_SESSION_STATE);
}

}  // namespace
}  // namespace postkeeper::zk
