// The contract suite's real world: one ZooKeeper server, CClient, and a relay for each client that can cut it off.
#include <map>
#include <optional>

#include "tests/contract/c_client_world.h"
#include "tests/support/tcp_relay.h"
#include "tests/support/zookeeper_server.h"

namespace postkeeper::zk {
namespace {

constexpr std::size_t kNoLimit = 64 << 20;

ZookeeperServer& SharedServer() {
  static ZookeeperServer server;
  server.Start();
  return server;
}

class RealWorld : public CClientWorld {
 public:
  std::unique_ptr<Client> MakeClient(WorldClientOptions options) override {
    auto relay = std::make_unique<TcpRelay>(server_.port());
    CClientOptions c_options;
    c_options.hosts = relay->hosts();
    c_options.session_timeout = options.session_timeout;
    if (!options.checks_request_size) c_options.request_bytes_max = kNoLimit;
    auto client = std::make_unique<CClient>(environment_, c_options);
    relays_[client.get()] = std::move(relay);
    return client;
  }

  void Disconnect(Client& client) override {
    CutOff(client);
    Reconnect(client);
  }

  void CutOff(Client& client) override { relays_.at(&client)->Cut(); }

  void Reconnect(Client& client) override { relays_.at(&client)->Restore(); }

  void Expire(Client& client) override {
    // An ephemeral of the session tells when it has expired. It is made and watched by way of a second client.
    Peer witness(*this);
    std::string path = MakeRoot() + "/alive";
    std::optional<Response> made;
    client.Submit({.kind = Request::Kind::kCreate, .path = path, .mode = CreateMode::kEphemeral},
                  [&](Response response) { Record([&] { made = std::move(response); }); });
    WaitUntil([&] { return made.has_value(); });
    witness.Exists(path, witness.Noting("alive"));
    CutOff(client);
    witness.WaitForNotes(1);
    Reconnect(client);
  }

 private:
  ZookeeperServer& server_ = SharedServer();
  std::map<Client*, std::unique_ptr<TcpRelay>> relays_;
};

}  // namespace

std::unique_ptr<World> MakeRealWorld() { return std::make_unique<RealWorld>(); }

}  // namespace postkeeper::zk
