#include "service/metered_client.h"

#include <array>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

std::string_view OperationName(zk::Request::Kind kind) {
  switch (kind) {
    case zk::Request::Kind::kCreate:
      return "create";
    case zk::Request::Kind::kGet:
      return "get";
    case zk::Request::Kind::kSet:
      return "set";
    case zk::Request::Kind::kDelete:
      return "delete";
    case zk::Request::Kind::kExists:
      return "exists";
    case zk::Request::Kind::kChildren:
      return "children";
    case zk::Request::Kind::kMulti:
      return "multi";
    case zk::Request::Kind::kSync:
      return "sync";
  }
  return "unknown";
}

constexpr std::size_t kCodes = static_cast<std::size_t>(zk::Code::kClosed) + 1;

// The codes' names in lower case, made once.
const std::string& LabelOf(zk::Code code) {
  static const auto* const kLabels = [] {
    auto* labels = new std::array<std::string, kCodes>;
    for (std::size_t i = 0; i < kCodes; ++i) {
      (*labels)[i] = absl::AsciiStrToLower(AbslView(zk::CodeName(static_cast<zk::Code>(i))));
    }
    return labels;
  }();
  return (*kLabels)[static_cast<std::size_t>(code)];
}

// Alive as long as the watcher that holds it.
class WatchCount {
 public:
  explicit WatchCount(std::shared_ptr<std::atomic<std::int64_t>> watches) : watches_(std::move(watches)) {
    ++*watches_;
  }
  ~WatchCount() { --*watches_; }
  WatchCount(const WatchCount&) = delete;
  WatchCount& operator=(const WatchCount&) = delete;

 private:
  const std::shared_ptr<std::atomic<std::int64_t>> watches_;
};

}  // namespace

MeteredClient::MeteredClient(Environment& environment, zk::Client& client, Metrics& metrics)
    : environment_(environment), client_(client), metrics_(metrics) {
  metrics_.SetZookeeperGauges([this] {
    return ZookeeperGauges{.is_connected = client_.session().state == zk::SessionState::kConnected,
                           .requests_in_flight = in_flight_,
                           .watches = *watches_,
                           .watched_path_bytes = static_cast<std::int64_t>(client_.watched_path_bytes())};
  });
  client_.ObserveSession([&metrics](const zk::SessionEvent& event) {
    if (event.state == zk::SessionState::kExpired) metrics.zookeeper().SessionExpired();
  });
}

MeteredClient::~MeteredClient() { metrics_.SetZookeeperGauges({}); }

void MeteredClient::Submit(zk::Request request, Completion done) {
  const std::string_view operation = OperationName(request.kind);
  const Instant sent_at = environment_.Now();
  ++in_flight_;
  if (request.watcher) {
    const auto count = std::make_shared<WatchCount>(watches_);
    request.watcher = [watcher = std::move(request.watcher), count](zk::WatchEvent event) mutable {
      watcher(std::move(event));
    };
  }
  client_.Submit(std::move(request), [this, operation, sent_at, done = std::move(done)](zk::Response response) mutable {
    --in_flight_;
    metrics_.zookeeper().Requested(operation, LabelOf(response.code), environment_.Now() - sent_at);
    done(std::move(response));
  });
}

}  // namespace postkeeper
