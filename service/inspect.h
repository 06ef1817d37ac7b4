// `postkeeperd inspect`: looks at one znode of the store.
#ifndef POSTKEEPER_SERVICE_INSPECT_H_
#define POSTKEEPER_SERVICE_INSPECT_H_

#include <string>
#include <vector>

namespace postkeeper {

// `arguments` are those behind "inspect". Reads only; returns the exit code: 0, 1 (could not), 2 (usage), 4 (no such
// znode), 5 (ZooKeeper does not answer), with one line on stderr unless 0.
int RunInspect(const std::vector<std::string>& arguments);

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_INSPECT_H_
