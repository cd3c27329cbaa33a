// SPDX-License-Identifier: Apache-2.0
// Opens /dev/net/tun, makes a network device by it, gives that an address, and passes a packet in both
// directions: what is sent to an address behind the device is read from it, and written back as the answer.
//
// Static, so that it runs in a container that has nothing else. Says what went wrong; exit status 0: nothing.

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <utility>

namespace {

constexpr char kHere[] = "198.18.0.1", kMask[] = "255.255.255.0", kBehind[] = "198.18.0.2";
constexpr uint16_t kPort = 7;
constexpr std::string_view kText = "there and back";

void Check(bool good, const char* what) {
  if (good) return;
  std::perror(what);
  std::exit(1);
}

sockaddr_in Address(const char* ip, uint16_t port = 0) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  inet_pton(AF_INET, ip, &address.sin_addr);
  return address;
}

int MakeDevice(ifreq& device) {
  const int tun = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
  Check(tun >= 0, "/dev/net/tun");
  device.ifr_flags = IFF_TUN | IFF_NO_PI;
  Check(ioctl(tun, TUNSETIFF, &device) == 0, "TUNSETIFF");
  return tun;
}

void Configure(int socket, ifreq& device) {
  const sockaddr_in here = Address(kHere), mask = Address(kMask);
  std::memcpy(&device.ifr_addr, &here, sizeof(here));
  Check(ioctl(socket, SIOCSIFADDR, &device) == 0, "SIOCSIFADDR");
  std::memcpy(&device.ifr_netmask, &mask, sizeof(mask));
  Check(ioctl(socket, SIOCSIFNETMASK, &device) == 0, "SIOCSIFNETMASK");
  device.ifr_flags = IFF_UP | IFF_RUNNING;
  Check(ioctl(socket, SIOCSIFFLAGS, &device) == 0, "SIOCSIFFLAGS");
}

void WaitFor(int fd, const char* what) {
  pollfd readable{fd, POLLIN, 0};
  Check(poll(&readable, 1, 10'000) == 1, what);
}

// The sums are right as they are: nothing in them changes but the order.
void SendBack(int tun) {
  std::array<char, 2048> packet;
  for (int i = 0; i < 100; ++i) {
    WaitFor(tun, "no packet comes");
    const ssize_t size = read(tun, packet.data(), packet.size());
    Check(size >= 0, "reading a packet");
    ip header;
    udphdr ports;
    if (static_cast<size_t>(size) < sizeof(header) + sizeof(ports)) continue;
    std::memcpy(&header, packet.data(), sizeof(header));
    std::memcpy(&ports, packet.data() + sizeof(header), sizeof(ports));
    // The kernel's own look for routers and groups.
    if (header.ip_v != 4 || header.ip_p != IPPROTO_UDP ||
        header.ip_dst.s_addr != Address(kBehind).sin_addr.s_addr)
      continue;
    std::swap(header.ip_src, header.ip_dst);
    std::swap(ports.source, ports.dest);
    std::memcpy(packet.data(), &header, sizeof(header));
    std::memcpy(packet.data() + sizeof(header), &ports, sizeof(ports));
    Check(write(tun, packet.data(), static_cast<size_t>(size)) == size, "writing a packet");
    return;
  }
  std::fputs("a hundred packets, and none of ours\n", stderr);
  std::exit(1);
}

}  // namespace

int main() {
  ifreq device{};
  const int tun = MakeDevice(device);
  const int udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  Check(udp >= 0, "socket");
  Configure(udp, device);
  const sockaddr_in behind = Address(kBehind, kPort);
  Check(connect(udp, reinterpret_cast<const sockaddr*>(&behind), sizeof(behind)) == 0, "connect");
  Check(send(udp, kText.data(), kText.size(), 0) == static_cast<ssize_t>(kText.size()), "send");
  SendBack(tun);
  WaitFor(udp, "no answer comes");
  std::array<char, 64> answer;
  const ssize_t size = recv(udp, answer.data(), answer.size(), 0);
  Check(size >= 0, "recv");
  std::printf("%s: %.*s\n", device.ifr_name, static_cast<int>(size), answer.data());
  return 0;
}
