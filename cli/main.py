def main():
    """Placeholder"""
