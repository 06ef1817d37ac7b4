// The znodes of the simulated ZooKeeper: a plain data structure without time, sessions or network.
#ifndef POSTKEEPER_ZKSTORE_SIMULATED_TREE_H_
#define POSTKEEPER_ZKSTORE_SIMULATED_TREE_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "zkstore/client.h"

namespace postkeeper::zk {

// Something that watches can be waiting for. kDeleted wakes data and child watches of the path, kChildren child
// watches, the others data watches.
struct TreeEvent {
  WatchType type;
  std::string path;
};

// Behaves as ZooKeeper 3.8.0 does: the order in which a request's faults are looked for, the numbers in every Stat, the
// order of events, and even the order in which the ephemerals of a session go.
//
// As in ZooKeeper, a write has two halves. Preparing checks each operation against the tree and against what the
// operations before it in the same multi will have changed; if all pass, they are applied and cannot fail any more.
// Access rights are not modelled, but for /zookeeper/config, which nobody may change.
//
// Not thread-safe.
class SimulatedTree {
 public:
  // Of one write: its number, the server's clock, and whose ephemerals it creates.
  struct Transaction {
    std::int64_t zxid;
    std::int64_t time_ms;
    std::int64_t session_id;
  };

  SimulatedTree();

  // Carries out a kCreate, kSet, kDelete or kMulti and appends what watches may be waiting for, in order.
  Response Write(const Request& request, const Transaction& transaction, std::vector<TreeEvent>& events);
  // Answers a kGet, kExists or kChildren.
  Response Read(const Request& request) const;
  // Deletes the ephemerals of a session that ends.
  void RemoveEphemerals(const Transaction& transaction, std::vector<TreeEvent>& events);

  // For tests that look inside. Null: there is no such znode.
  const std::string* FindData(const std::string& path) const;
  bool FindStat(const std::string& path, Stat& stat) const;
  // All paths, sorted, without /zookeeper.
  std::vector<std::string> Paths() const;

 private:
  struct Node {
    std::string data;
    Stat stat;                 // without the three numbers that follow from the members below
    std::int32_t creates = 0;  // children ever created
    std::set<std::string> children;

    Stat CurrentStat() const;
  };

  // What preparing knows about a znode. ZooKeeper calls it a ChangeRecord.
  struct Record {
    bool exists = false;
    std::int32_t version = 0;
    std::int32_t creates = 0;
    std::int32_t num_children = 0;
    std::int64_t ephemeral_owner = 0;
  };

  // A view of the tree with the changes of a write that is being prepared.
  class Draft;

  // The ephemerals of one session, in the order in which Java's HashSet would list a copy of them.
  class EphemeralSet {
   public:
    void Add(const std::string& path);
    void Remove(const std::string& path);
    std::vector<std::string> InJavaOrder() const;

   private:
    std::vector<std::string> paths_;  // in the order of their creation
    std::size_t table_size_ = 16;     // grows, never shrinks
  };

  Code Prepare(const Op& op, const Transaction& transaction, Draft& draft, std::string& path_made) const;
  Code PrepareCreate(const Op& op, const Transaction& transaction, Draft& draft, std::string& path_made) const;
  Code PrepareDelete(const Op& op, Draft& draft) const;
  OpResult Apply(const Op& op, const std::string& path_made, const Transaction& transaction,
                 std::vector<TreeEvent>& events);
  void ApplyCreate(const Op& op, const std::string& path, const Transaction& transaction,
                   std::vector<TreeEvent>& events);
  void ApplyDelete(const std::string& path, const Transaction& transaction, std::vector<TreeEvent>& events);
  Response WriteAll(const std::vector<Op>& ops, const Transaction& transaction, std::vector<TreeEvent>& events);

  std::unordered_map<std::string, Node> nodes_;
  std::map<std::int64_t, EphemeralSet> ephemerals_;  // by session
};

// Whether a server takes the path in a create, set or check.
bool IsPathForServer(const std::string& path);
// Whether a client sends a request for the path at all. A sequential create may end in "/".
bool IsPathForClient(const std::string& path, bool is_sequential);

}  // namespace postkeeper::zk

#endif  // POSTKEEPER_ZKSTORE_SIMULATED_TREE_H_
