"""What if an image were not there, or looked otherwise?"""
