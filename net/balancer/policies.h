// SPDX-License-Identifier: Apache-2.0
// What the policies are made of: one function for each, which PickTable::Make chooses from, and the tables by
// which they pick, which depend on nothing but the backends.
//
// Tables name backends by their index. Weights are 1 to kMostWeight.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "net/balancer/pick_table.h"

namespace shunt::net {

std::unique_ptr<const PickTable> MakeRoundRobin(std::vector<PickGroup> groups, RoundRobinPlaces& places);
std::unique_ptr<const PickTable> MakeRandom(std::vector<PickGroup> groups);
std::unique_ptr<const PickTable> MakeLeastRequest(std::vector<PickGroup> groups);
std::unique_ptr<const PickTable> MakeLeastConnections(std::vector<PickGroup> groups);
std::unique_ptr<const PickTable> MakeLeastRtt(std::vector<PickGroup> groups);
std::unique_ptr<const PickTable> MakeMaglev(std::vector<PickGroup> groups);
std::unique_ptr<const PickTable> MakeRingHash(std::vector<PickGroup> groups);
std::unique_ptr<const PickTable> MakeFirst(std::vector<PickGroup> groups);

// The order of a round-robin: each backend as often as its weight says (weights reduced by their greatest
// common divisor), evenly spread: among the first n places of W, one of weight w has more than n w / W - 1
// and fewer than n w / W + 1. Weights whose sum is above MostPlaces() are scaled down to it, but no backend
// goes without a place; so there may be as many places more as there are backends.
std::vector<uint32_t> RoundRobinOrder(std::span<const Backend> backends);
constexpr size_t MostPlaces(size_t backends) {
  return backends * 64 > 65536 ? backends * 64 : 65536;
}

// Maglev's table: the backend of each entry. Its size is a prime, 65537 or at least 100 for each backend (of
// which there may be 167,772; beyond that it stays 16,777,259). The prime is one of few, a factor of two
// apart: with another one, nearly all entries change. Backends are in the order of their identities.
std::vector<uint32_t> MaglevTable(std::span<const Backend> backends);

// Points of a ring, by position: a hash belongs to the first point whose position is not below its upper
// half, or else to the first one of all. The heaviest backend has 1600 points and the others as many as their
// weights say, at least one. In a ring of 65536 points and more it is 1600 halved as often as the ring stays
// that large, but not below 100; and where few are heavy, doubled until there are 100 for each backend
// together. Backends are in the order of their identities.
struct RingPoint {
  uint32_t position;
  uint32_t backend;
};
struct Ring {
  std::vector<RingPoint> points;
  // The ring is cut into parts of 2^shift positions, as many as there are points or up to twice as many. Of
  // each part, the index of the first point that lies in it or behind it.
  std::vector<uint32_t> first;
  int shift = 0;
};
Ring RingOf(std::span<const Backend> backends);

}  // namespace shunt::net
