// SPDX-License-Identifier: Apache-2.0
// PortRegistry: which container owns which published host port. A port of the host is promised once, even
// while nobody is bound to it yet.
//
// A container comes with as many listeners as it had processes started in it (its own and one for each exec),
// and all want the same ports: claims of one container are counted, and the last Release() frees its ports.
//
// Containers of one pod share a network, and all come with the pod's wishes: a port that several of them want
// is published for the network, whichever of them binds it.

#pragma once

#include <sys/types.h>

#include <compare>
#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "net/publish.h"

namespace shunt {

// What identifies a container to an agent: runtimes keep ids apart only within one user.
struct ContainerKey {
  uid_t uid = 0;
  std::string id;
  // NOLINTNEXTLINE(modernize-use-nullptr): the 0 that it sees is the compiler's own.
  friend auto operator<=>(const ContainerKey&, const ContainerKey&) = default;
};

class PortRegistry {
 public:
  struct Conflict {
    net::Publish wanted;
    ContainerKey holder;
  };

  // Claims `ports` for `container`, except those that another one holds: they are returned, and taken out of
  // `ports`. Each Claim(), also one without ports, needs one Release(). `pod`: which one of the
  // user's it is in; empty: in none that is known.
  std::vector<Conflict> Claim(const ContainerKey& container, std::vector<net::Publish>& ports,
                              const std::string& pod = "");
  void Release(const ContainerKey& container);

  size_t containers() const { return holders_.size(); }

 private:
  struct Holder {
    size_t claims = 0;
    std::string pod;
    std::vector<net::Publish> ports;
  };

  const ContainerKey* HolderOf(const net::Publish& wanted, const ContainerKey& except,
                               const std::string& pod) const;

  std::map<ContainerKey, Holder> holders_;
};

}  // namespace shunt
