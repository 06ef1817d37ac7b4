from zoo_server import ZooServer
from zoo_client import ZooClient

class ZookeeperTask:
    def __init__(self, name, data):
        self.name = name
        self.data = data

    def execute(self):
        print(f"任务{self.name}执行中...")

def main():
    server = ZooServer()
    client = ZooClient()

    # 添加任务
    task1 = ZookeeperTask("任务1", "数据1")
    task2 = ZookeeperTask("任务2", "数据2")
    server.add_task(task1)
    server.add_task(task2)

    # 消费任务
    while not server.is_empty():
        task = server.get_task()
        task.execute()

if __name__ == "__main__":
    main()
