// Sees every change of the simulated store, past the service.
#ifndef POSTKEEPER_TESTS_SUPPORT_SIMULATION_AUDITOR_H_
#define POSTKEEPER_TESTS_SUPPORT_SIMULATION_AUDITOR_H_

#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "tests/support/simulation/history.h"
#include "zkstore/layout.h"
#include "zkstore/simulator.h"

namespace postkeeper {

// Writes into the history which messages stand in the logs and when they go, and when owners let go; and judges, as it
// happens, that whatever is written on behalf of a log is written by its owner (G7). The logs must be entered in
// history.logs when they are created.
class Auditor {
 public:
  using Tracer = std::function<void(const std::string&)>;
  Auditor(zk::SimulatedEnsemble& ensemble, const Layout& layout, History& history, Tracer trace);
  ~Auditor();
  Auditor(const Auditor&) = delete;
  Auditor& operator=(const Auditor&) = delete;

 private:
  struct Owner {
    OwnerView view;
    OwnerView before;       // the change
    std::int64_t zxid = 0;  // of the latest change
  };

  void OnEvent(const zk::TreeEvent& event);
  void OnOwner(const Uid& uid, const std::string& path);
  void OnBatchCreated(const Uid& uid, Position at, const std::string& path);
  void OnBatchDeleted(const Uid& uid, Position at);
  void OnOwnersWrite(const Uid& uid, std::string_view what);

  zk::SimulatedEnsemble& ensemble_;
  const Layout layout_;
  History& history_;
  const Tracer trace_;
  std::map<std::int64_t, ProcessId> sessions_;
  std::map<Uid, Owner> owners_;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_TESTS_SUPPORT_SIMULATION_AUDITOR_H_
