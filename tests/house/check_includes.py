"""Includes follow the arrows between folders, as CMakeLists.txt declares them, and make no circle."""

import re

import source_tree


def declared_arrows(cmake):
    """{folder: folders that it may include}, from the lines annulus_library(name folder links...)."""
    arrows, folder_of = {}, {}
    for name, folder, links in re.findall(r"^annulus_library\((\w+) (\S+)((?: \S+)*)\)", cmake, re.MULTILINE):
        direct = [folder_of[link] for link in re.findall(r"annulus::(\w+)", links) if link in folder_of]
        arrows[folder] = {folder}.union(*(arrows[other] for other in direct))
        folder_of[name] = folder
    return arrows


def owner(path, folders):
    """The declared folder that a path lies in: the longest that fits."""
    fitting = [folder for folder in folders if path.startswith(folder + "/")]
    return max(fitting, key=len, default=None)


def circles(graph):
    """Each circle of the include graph once, as a list of files."""
    found, done = [], set()

    def visit(path, trail):
        if path in trail:
            found.append(trail[trail.index(path):] + [path])
        elif path not in done:
            for other in graph.get(path, ()):
                visit(other, trail + [path])
            done.add(path)

    for path in graph:
        visit(path, [])
    return found


def check(root):
    arrows = declared_arrows(source_tree.text(root, "CMakeLists.txt"))
    paths = source_tree.files(root)
    problems, graph = [], {}
    for path in paths:
        included = source_tree.includes(source_tree.text(root, path))
        graph[path] = [other for _, other in included]
        home = owner(path, arrows)
        for number, other in included:
            where = f"{path}:{number}: includes {other}"
            if other not in paths:
                problems.append(f"{where}, which is not there; include by the full path from the repository's root")
            elif home is None:
                if path.split("/")[0] in source_tree.FOLDERS:
                    problems.append(f"{path}: lies in a folder that CMakeLists.txt does not declare")
            elif owner(other, arrows) not in arrows[home]:
                problems.append(f"{where}, against the arrows: {home} may include {', '.join(sorted(arrows[home]))}")
    return problems + [f"a circle of includes: {' -> '.join(circle)}" for circle in circles(graph)]
