#include "bench/zookeeper_load.h"

#include <absl/strings/str_format.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <future>
#include <thread>
#include <utility>
#include <vector>

#include "bench/service_client.h"
#include "postkeeper/v1/message.pb.h"
#include "zkstore/batch.h"
#include "zkstore/c_client.h"
#include "zkstore/real_environment.h"
#include "zkstore/text.h"

namespace postkeeper::bench {
namespace {

constexpr auto kConnectTimeout = std::chrono::seconds(10);
constexpr auto kCloseTimeout = std::chrono::seconds(5);
constexpr std::int64_t kDeletesPerMulti = 200;

std::string BatchPath(const std::string& folder, std::int64_t number) {
  return Cat(folder, "/b-", absl::StrFormat("%010d", number));
}

zk::Response CallAndWait(zk::Client& client, zk::Request request) {
  std::promise<zk::Response> answered;
  client.Submit(std::move(request), [&answered](zk::Response response) { answered.set_value(std::move(response)); });
  return answered.get_future().get();
}

absl::Status ToStatus(zk::Code code, std::string_view what) {
  if (code == zk::Code::kOk) return absl::OkStatus();
  return absl::UnavailableError(Cat(what, ": ZooKeeper answered ", zk::CodeName(code)));
}

absl::Status CreateNode(zk::Client& client, const std::string& path) {
  const zk::Response made = CallAndWait(client, {.kind = zk::Request::Kind::kCreate, .path = path});
  return ToStatus(made.code, Cat("create ", path));
}

// A batch as postkeeperd writes it.
std::string MakeBatch(int messages, int body_bytes) {
  v1::Message message;
  message.set_body(MakeBody(body_bytes));
  const std::vector<NewMessage> copies(static_cast<std::size_t>(messages), {.bytes = message.SerializeAsString()});
  BatchBuilder builder;
  builder.Add(copies, "");
  const auto now = std::chrono::time_point_cast<std::chrono::milliseconds>(std::chrono::system_clock::now());
  return std::move(builder).Build({}, now).encoded;
}

// Keeps so many requests on their way. The completion of one submits the next, so their order is that of the calls to
// MakeRequest. What was created is deleted at the end, by number: numbers are dense.
class RequestLoad : public Load {
 public:
  // `folder` is a znode that exists; what is created is called b-.
  RequestLoad(zk::Client& client, std::string folder, int in_flight, std::int64_t counts_for)
      : client_(client), folder_(std::move(folder)), in_flight_(in_flight), counts_for_(counts_for) {}

  absl::Status Start() override {
    if (absl::Status status = CreateNode(client_, folder_); !status.ok()) return status;
    if (absl::Status status = Prepare(); !status.ok()) return status;
    const std::lock_guard lock(mutex_);
    for (int i = 0; i < in_flight_; ++i) SubmitNext();
    return absl::OkStatus();
  }

  void Stop() override {
    {
      std::unique_lock lock(mutex_);
      is_stopping_ = true;
      // Each request ends within its timeout.
      changed_.wait(lock, [this] { return open_ == 0; });
    }
    if (std::exchange(is_removed_, true)) return;
    for (std::int64_t first = 0; first < created_; first += kDeletesPerMulti) {
      zk::Request request{.kind = zk::Request::Kind::kMulti};
      for (std::int64_t i = first; i < std::min(first + kDeletesPerMulti, created_); ++i) {
        request.ops.push_back(zk::Op::Delete(BatchPath(folder_, i)));
      }
      CallAndWait(client_, std::move(request));
    }
  }

 protected:
  // Once, before the first request.
  virtual absl::Status Prepare() { return absl::OkStatus(); }
  // With the mutex held.
  virtual zk::Request MakeRequest() = 0;

  zk::Client& client_;
  const std::string folder_;

 private:
  void SubmitNext() {
    ++open_;
    client_.Submit(MakeRequest(), [this, sent_at = Clock::now()](zk::Response response) {
      const std::lock_guard lock(mutex_);
      --open_;
      if (response.code == zk::Code::kOk) {
        ++created_;
        RecordLatency(Clock::now() - sent_at);
        CountDone(counts_for_);
      } else {
        Fail(ToStatus(response.code, "write"));
      }
      if (!is_stopping_ && !has_failed()) SubmitNext();
      changed_.notify_all();
    });
  }

  const int in_flight_;
  const std::int64_t counts_for_;

  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_.
  int open_ = 0;
  bool is_stopping_ = false;
  std::int64_t created_ = 0;

  bool is_removed_ = false;  // touched by Stop only
};

class CreateLoad final : public RequestLoad {
 public:
  CreateLoad(zk::Client& client, std::string folder, int in_flight, int body_bytes)
      : RequestLoad(client, std::move(folder), in_flight, 1), data_(MakeBatch(1, body_bytes)) {}
  ~CreateLoad() override { Stop(); }

 private:
  zk::Request MakeRequest() override {
    return {.kind = zk::Request::Kind::kCreate,
            .path = folder_ + "/b-",
            .data = data_,
            .mode = zk::CreateMode::kPersistentSequential};
  }

  const std::string data_;
};

class AppendBatchLoad final : public RequestLoad {
 public:
  AppendBatchLoad(zk::Client& client, std::string folder, int in_flight, int messages, int body_bytes)
      : RequestLoad(client, std::move(folder), in_flight, messages),
        producer_(folder_ + "-producer"),
        batch_(MakeBatch(messages, body_bytes)) {}
  ~AppendBatchLoad() override { Stop(); }

 private:
  absl::Status Prepare() override { return CreateNode(client_, producer_); }

  zk::Request MakeRequest() override {
    zk::Request request{.kind = zk::Request::Kind::kMulti};
    request.ops.push_back(zk::Op::Set(producer_, "batch", version_++));
    request.ops.push_back(zk::Op::Check(folder_, 0));
    request.ops.push_back(zk::Op::Create(folder_ + "/b-", batch_, zk::CreateMode::kPersistentSequential));
    return request;
  }

  const std::string producer_;
  const std::string batch_;
  std::int32_t version_ = 0;
};

class ZookeeperBenchImpl final : public ZookeeperBench {
 public:
  explicit ZookeeperBenchImpl(const std::string& hosts) : client_(environment_, {.hosts = hosts}) {}

  ~ZookeeperBenchImpl() override {
    const zk::Response left = CallAndWait(client_, {.kind = zk::Request::Kind::kChildren, .path = root_});
    for (const std::string& child : left.children) Delete(Cat(root_, "/", child));
    Delete(root_);
    client_.Close(kCloseTimeout);
    environment_.Stop();
    environment_.Join();
  }

  absl::Status Open() {
    const Clock::time_point deadline = Clock::now() + kConnectTimeout;
    while (client_.session().state != zk::SessionState::kConnected) {
      if (Clock::now() > deadline) return absl::UnavailableError("no session with ZooKeeper within 10 s");
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return CreateNode(client_, root_);
  }

  std::unique_ptr<Load> MakeCreateLoad(int in_flight, int body_bytes) override {
    return std::make_unique<CreateLoad>(client_, NextFolder(), in_flight, body_bytes);
  }
  std::unique_ptr<Load> MakeAppendLoad(int in_flight, int messages, int body_bytes) override {
    return std::make_unique<AppendBatchLoad>(client_, NextFolder(), in_flight, messages, body_bytes);
  }

 private:
  std::string NextFolder() { return Cat(root_, "/", ++folders_); }

  void Delete(const std::string& path) {
    const zk::Response gone = CallAndWait(client_, {.kind = zk::Request::Kind::kDelete, .path = path});
    if (gone.code != zk::Code::kOk) {
      std::fprintf(stderr, "%s is left in ZooKeeper: %s\n", path.c_str(), std::string(zk::CodeName(gone.code)).c_str());
    }
  }

  RealEnvironment environment_{1, "bench"};
  zk::CClient client_;
  const std::string root_ = Cat("/postkeeper-bench-", getpid());
  int folders_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ZookeeperBench>> ZookeeperBench::Connect(const std::string& hosts) {
  if (absl::Status status = zk::CheckHosts(hosts); !status.ok()) return status;
  auto bench = std::make_unique<ZookeeperBenchImpl>(hosts);
  if (absl::Status status = bench->Open(); !status.ok()) return status;
  return std::unique_ptr<ZookeeperBench>(std::move(bench));
}

}  // namespace postkeeper::bench
