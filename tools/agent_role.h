// SPDX-License-Identifier: Apache-2.0
// AgentRole: what an agent's engine does: takes listeners in from runtimes, decides what their containers
// get, and knows of each only how many listeners it came with and which host ports are its own.

#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "core/intake.h"
#include "core/socket_file.h"
#include "tools/agent_config.h"
#include "tools/agent_services.h"
#include "tools/agent_settings.h"
#include "tools/container_decision.h"
#include "tools/control_server.h"
#include "tools/engine_role.h"
#include "tools/log_budget.h"
#include "tools/metrics_server.h"
#include "tools/pod_directory.h"
#include "tools/port_registry.h"
#include "tools/registrar.h"
#include "tools/undecided.h"

namespace shunt {

struct AgentRoleOptions {
  std::string config;             // the configuration's file; empty: none
  std::vector<uid_t> allow_uids;  // users who may hand over, beside those of the configuration
  Resolver resolver = Resolver::kMetadata;
  std::string kubeconfig;
  std::string registers;  // "etcd", or as the configuration says
  bool strict = false;    // whatever the configuration says
  bool verbose = false;
};

// Says so if everybody may connect to the socket on which runtimes hand over.
void WarnIfOpen(const SocketFile& socket);

class AgentRole final : public EngineRole {
 public:
  // `ask_upgrade` passes on that somebody wants the program that is installed now to take over; the answer
  // comes as Upgraded(). `hold` keeps something for the engines after this one, until `drop`; `ask` has it
  // given to this one once more.
  AgentRole(AgentRoleOptions options, std::function<void()> ask_upgrade,
            std::function<void(HoldingName, std::span<const int> fds)> hold,
            std::function<void(HoldingName)> drop, std::function<void(HoldingName)> ask)
      : options_(std::move(options)),
        ask_upgrade_(std::move(ask_upgrade)),
        hold_(std::move(hold)),
        drop_(std::move(drop)),
        ask_(std::move(ask)),
        started_(std::chrono::system_clock::to_time_t(std::chrono::system_clock::now())) {}

  absl::Status Prepare(Accelerator& accelerator, Given& given) override;
  absl::StatusOr<std::string> Adopt(uint64_t key, std::vector<Fd> held) override;
  void AdoptConnection(uint64_t name, Fd connection) override { intake_->Adopt(name, std::move(connection)); }
  int event_fd() const override { return events_.get(); }
  void HandleEvents() override;
  void Introduced(uint64_t key, uint64_t netns, const std::vector<net::Publish>& publish,
                  std::vector<net::IpAddress> addresses) override;
  void Begin() override;
  void Reload() override { ReadAgain().IgnoreError(); }
  void Upgraded(const absl::Status& status) override;
  void Leave() override;

 private:
  absl::Status Watch(int fd, const char* what);
  absl::Status ServeMetrics(Given& given);
  std::string MetricsPage() const;
  void Receive(Handover handover);
  void LogUnusable(const Handover& handover);
  absl::Status FindPods();
  absl::Status StartRegistrar(Given& given);
  bool Registers(const AgentConfig& config) const {
    return config.multinode.registers || !options_.registers.empty();
  }
  DecisionMaker Maker() const { return {config_, options_.resolver, IsStrict()}; }
  void Serve(Handover& handover);
  uint64_t NewKey();
  absl::Status MayWait(uid_t uid) const;
  void Await(Undecided container);
  bool AwaitAgain(uint64_t key, const ContainerSpec& spec, Fd& listener);
  void HoldContainer(uint64_t key, const std::vector<Fd>& held) const;
  bool Awaits(int listener) const;
  void OnPod(uint64_t key, const absl::StatusOr<PodDirectory::Record>& pod);
  void Settle(uint64_t key, Undecided container, const absl::StatusOr<PodDirectory::Record>& pod);
  void ServeAs(uint64_t key, Undecided container, Decision decision, PodDirectory::Record pod);
  void KeepOrdinary(uint64_t key, Handover handover, const Policy& policy);
  bool IsStrict() const { return options_.strict || config_.strict; }
  absl::Status ReadAgain();
  void HoldSettings() const;
  void Claim(const ContainerKey& container, ContainerSpec& spec);
  void Ended(uint64_t key, const ContainerKey& container);
  PeerRule PeersFor(const AgentConfig& config) const;
  std::string Answer(const std::string& command);

  const AgentRoleOptions options_;
  const std::function<void()> ask_upgrade_;
  const std::function<void(HoldingName, std::span<const int> fds)> hold_;
  const std::function<void(HoldingName)> drop_;
  const std::function<void(HoldingName)> ask_;
  AgentSettings settings_;
  AgentConfig config_;
  AgentServices services_;
  PortRegistry ports_;
  LogBudget unusable_;                        // of what is no container state
  size_t listeners_ = 0;                      // being served
  std::unique_ptr<PodDirectory> pods_;        // null: nobody is asked
  absl::Status no_pods_;                      // why not, if somebody should be
  std::map<uint64_t, Undecided> undecided_;   // by the names that they are held and will be served under
  std::map<uint64_t, ContainerKey> adopted_;  // from an engine before us, and counted
  Accelerator* accelerator_ = nullptr;
  Fd events_;  // an epoll over those below
  std::unique_ptr<Intake> intake_;
  std::unique_ptr<ControlServer> control_;
  std::unique_ptr<MetricsServer> metrics_;
  std::unique_ptr<Registrar> registrar_;  // null: nothing is announced
  const int64_t started_;                 // seconds since 1970
};

}  // namespace shunt
